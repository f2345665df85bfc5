"""The optimiser of the trajectory model, and a step of any optimiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from mtm_jax.config import OptimConfig


def make_schedule(
    config: OptimConfig, learning_rate: float | Array | None = None
) -> optax.Schedule:
    """Linear warm-up from zero to the learning rate, then a cosine to zero at `total_steps`.

    Under schedule "constant" the learning rate stays after the warm-up.

    Args:
        config: settings.
        learning_rate: where it is not `config`'s, and may be traced; optax's own schedule of this
            shape takes a number only.
    """
    learning_rate = config.learning_rate if learning_rate is None else learning_rate
    decay_steps = max(config.total_steps, config.warmup_steps + 1) - config.warmup_steps
    warmup = optax.linear_schedule(0.0, learning_rate, config.warmup_steps)
    if config.schedule == "constant":
        later = optax.constant_schedule(learning_rate)
    else:
        later = optax.cosine_decay_schedule(learning_rate, decay_steps)
    return optax.join_schedules([warmup, later], [config.warmup_steps])


def decay_mask(params: dict) -> dict:
    """True for matrices, the only parameters that weight decay acts on.

    Biases, gains, mask tokens and modality embeddings have the last path element "kernel" nowhere.
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def make_optimizer(
    config: OptimConfig, learning_rate: float | Array | None = None
) -> optax.GradientTransformation:
    """AdamW with decoupled weight decay on matrices, the schedule, and optional clipping.

    Args:
        config, learning_rate: see `make_schedule`.
    """
    adamw = optax.adamw(
        make_schedule(config, learning_rate),
        b1=config.b1,
        b2=config.b2,
        weight_decay=config.weight_decay,
        mask=decay_mask,
    )
    if config.clip_norm > 0:
        adamw = optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw)
    return _over_vectors(adamw)


def _over_vectors(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """Let an optimiser see parameters as `to_vectors` joins them.

    A program that updates a hundred small arrays one by one takes long to compile and to start.
    """

    def init(params: dict) -> optax.OptState:
        return optimizer.init(to_vectors(params))

    def update(grads: dict, state: optax.OptState, params: dict) -> tuple[dict, optax.OptState]:
        vectors, state = optimizer.update(to_vectors(grads), state, to_vectors(params))
        return _from_vectors(vectors, params), state

    return optax.GradientTransformation(init, update)


def to_vectors(params: dict) -> dict[str, Array]:
    """Join all matrices in the vector "kernel" and everything else in "other"."""
    groups = _groups(params)
    return {name: jnp.concatenate([x.ravel() for x in group]) for name, group in groups.items()}


def _from_vectors(vectors: dict[str, Array], like: dict) -> dict:
    """Invert `to_vectors`."""
    parts = {
        name: iter(jnp.split(vectors[name], np.cumsum([x.size for x in group])[:-1]))
        for name, group in _groups(like).items()
    }
    take = lambda x, kernel: next(parts[_group(kernel)]).reshape(x.shape)  # noqa: E731
    return jax.tree.map(take, like, decay_mask(like))


def _groups(params: dict) -> dict[str, list[Array]]:
    """List the arrays of each vector."""
    groups = {}
    kernels = jax.tree.leaves(decay_mask(params))
    for x, kernel in zip(jax.tree.leaves(params), kernels, strict=True):
        groups.setdefault(_group(kernel), []).append(x)
    return groups


def _group(kernel: bool) -> str:
    return "kernel" if kernel else "other"


def update_average(config: OptimConfig, average: dict, params: dict, step: Array) -> dict:
    """Move the running average of the parameters towards them.

    Its decay rate rises from 2 / 11 to that of `config` as (1 + step) / (10 + step), so that the
    initial parameters are soon forgotten.

    Args:
        config: settings.
        average: before the step.
        params: after it.
        step: steps done, that one included, [].
    """
    # One less the decay, in which float32 has more digits.
    moved = jnp.maximum(1.0 - config.average, 9.0 / (10.0 + step))
    return optax.incremental_update(params, average, moved)


def descend(
    loss: Callable[[dict], tuple[Array, Any]],
    params: dict,
    opt_state: optax.OptState,
    optimizer: optax.GradientTransformation,
) -> tuple[dict, optax.OptState, Array, Any]:
    """Take one step down a loss.

    Args:
        loss: params -> (value, auxiliary output).
        params: parameters.
        opt_state: of `optimizer`.
        optimizer: one that does not need the parameters, such as Adam.

    Returns:
        new parameters, new state of the optimiser, the loss before the step, auxiliary output.
    """
    (value, aux), grads = jax.value_and_grad(loss, has_aux=True)(params)
    updates, opt_state = optimizer.update(grads, opt_state)
    return optax.apply_updates(params, updates), opt_state, value, aux
