"""The baselines of MTM: a multilayer perceptron for each role (MTM section 4.3, table 2).

bc    s_t            -> a_t
rcbc  s_t, return    -> a_t
id    s_t, s_{t+1}   -> a_t
fd    s_t, a_t       -> s_{t+1}

One step: draw pairs of consecutive steps -> normalise them -> squared error -> AdamW. The released
forward dynamics are given the action after the one that counts, which knows the state asked for.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array

from mtm_jax import tokens
from mtm_jax.config import MLPConfig
from mtm_jax.models import networks
from mtm_jax.training import dataset, losses, optim
from mtm_jax.training.program import Metrics, Training

# Role -> what it reads, and what it predicts: modality and step of a pair.
READS = {
    "bc": (("states", 0),),
    "rcbc": (("states", 0), ("returns", 0)),
    "id": (("states", 0), ("states", 1)),
    "fd": (("states", 0), ("actions", 0)),
}
PREDICTS = {"bc": ("actions", 0), "rcbc": ("actions", 0), "id": ("actions", 0), "fd": ("states", 1)}
PAIR = 2  # steps of a window that the data must be indexed for

Stats = Mapping[str, tokens.Stats]


class MLPState(flax.struct.PyTreeNode):
    """Everything that a restart needs."""

    params: dict
    average: dict | None  # running average of `params`, under `OptimConfig.average`
    opt_state: optax.OptState
    key: Array  # folded with `step`, never advanced
    step: Array  # optimiser steps done, [] int32


def make_training(config: MLPConfig, stats: Stats) -> Training:
    """Describe the training of one MLP; its data are a `dataset.Dataset` of windows of `PAIR`."""
    return Training(
        init=functools.partial(init, config, stats),
        step=functools.partial(step, config, stats),
        shared=config,
    )


def init(config: MLPConfig, stats: Stats, key: Array) -> MLPState:
    """Draw initial parameters."""
    init_key, run_key = jax.random.split(key)
    width = sum(stats[modality].mean.shape[0] for modality, _ in READS[config.role])
    params = _network(config, stats).init(init_key, jnp.zeros((1, width)))["params"]
    return MLPState(
        params=params,
        average=params if config.optim.average else None,
        opt_state=optim.make_optimizer(config.optim).init(params),
        key=run_key,
        step=jnp.zeros((), jnp.int32),
    )


def step(
    config: MLPConfig, stats: Stats, state: MLPState, data: dataset.Dataset
) -> tuple[MLPState, Metrics]:
    """Take one step."""
    key = jax.random.fold_in(state.key, state.step)
    windows = dataset.sample_windows(key, data, config.batch_size, PAIR)
    modality, offset = PREDICTS[config.role]
    target = tokens.encode(stats[modality], windows.values[modality][:, offset])

    def loss(params: dict) -> Array:
        error = losses.squared_error(_outputs(config, stats, params, windows.values), target)
        return losses.masked_mean(error, counted(config.role, windows))

    value, grads = jax.value_and_grad(loss)(state.params)
    optimizer = optim.make_optimizer(config.optim)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    state = state.replace(params=params, opt_state=opt_state, step=state.step + 1)
    if config.optim.average:
        average = optim.update_average(config.optim, state.average, params, state.step)
        state = state.replace(average=average)
    return state, {"train/loss": value}


def acting(state: MLPState) -> dict:
    """Give the parameters that act: their average where one is trained."""
    return state.params if state.average is None else state.average


def predict(config: MLPConfig, stats: Stats, params: dict, values: Mapping[str, Array]) -> Array:
    """Predict what the role is for, raw.

    Args:
        config, stats, params: the MLP.
        values: modality -> [..., t, D] raw, actions in [-1, 1]; t is 2, or 1 for policies.

    Returns:
        [..., D]: actions in [-1, 1], or next states.
    """
    modality, _ = PREDICTS[config.role]
    found = tokens.decode(stats[modality], _outputs(config, stats, params, values))
    return jnp.clip(found, -1.0, 1.0) if modality == "actions" else found


def counted(role: str, windows: dataset.Windows) -> Array:
    """Tell the pairs that have all that the role reads and predicts, [B] bool."""
    used = (*READS[role], PREDICTS[role])
    has = [windows.valid[:, offset] for _, offset in used]
    has += [windows.available[m] for m, _ in used if m in windows.available]
    return functools.reduce(jnp.logical_and, has)


def _outputs(config: MLPConfig, stats: Stats, params: dict, values: Mapping[str, Array]) -> Array:
    """Predict in units of tokens, [..., D]."""
    read = [tokens.encode(stats[m], values[m][..., offset, :]) for m, offset in READS[config.role]]
    return _network(config, stats).apply({"params": params}, jnp.concatenate(read, -1))


def _network(config: MLPConfig, stats: Stats) -> networks.MLP:
    modality, _ = PREDICTS[config.role]
    return networks.MLP((*config.hidden, stats[modality].mean.shape[0]), networks.gelu)
