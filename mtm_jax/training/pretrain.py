"""Masked pretraining: MTM (squared errors) and M3PC (action likelihood with bounded entropy).

One step: draw windows -> encode them under random masks -> loss and gradients -> AdamW step on the
parameters, and their running average if one is wanted -> Adam step on the multiplier sigma, which
bounds the entropy of a TanhNormal head.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array

from mtm_jax.config import PretrainConfig
from mtm_jax.models.trajectory_model import Model
from mtm_jax.training import dataset, losses, objective, optim, sharding
from mtm_jax.training.program import Metrics, Training


class TrainState(flax.struct.PyTreeNode):
    """Everything that a restart needs."""

    params: dict
    average: dict | None  # running average of `params`, under `OptimConfig.average`
    opt_state: optax.OptState
    log_sigma: Array  # log of the entropy multiplier, []
    sigma_opt_state: optax.OptState
    key: Array  # folded with `step`, never advanced
    step: Array  # optimiser steps done, [] int32


def make_training(config: PretrainConfig, model: Model, stats: objective.Stats) -> Training:
    """Describe the training of a model; its data are a `dataset.Dataset` of the model's window.

    Runs of one program may differ in the learning rate and the entropy target.
    """
    shared = dataclasses.replace(
        config,
        optim=dataclasses.replace(config.optim, learning_rate=1.0),
        loss=dataclasses.replace(config.loss, entropy_target=0.0),
    )
    return Training(
        init=functools.partial(init, config, model),
        step=functools.partial(step, shared, model, stats),
        settings=(config.optim.learning_rate, config.loss.entropy_target),
        shared=shared,
    )


def init(config: PretrainConfig, model: Model, key: Array) -> TrainState:
    """Draw initial parameters."""
    init_key, run_key = jax.random.split(key)
    params = model.init(init_key)
    log_sigma = jnp.log(jnp.asarray(config.loss.initial_sigma))
    return TrainState(
        params=params,
        average=params if config.optim.average else None,
        opt_state=optim.make_optimizer(config.optim).init(params),
        log_sigma=log_sigma,
        sigma_opt_state=optax.adam(config.loss.sigma_learning_rate).init(log_sigma),
        key=run_key,
        step=jnp.zeros((), jnp.int32),
    )


def step(
    config: PretrainConfig,
    model: Model,
    stats: objective.Stats,
    state: TrainState,
    data: Any,
    learning_rate: float | Array,
    entropy_target: float | Array,
    sample: Callable[..., dataset.Windows] = dataset.sample_windows,
) -> tuple[TrainState, Metrics]:
    """Take one step.

    Args:
        config: settings.
        model: the functions of the model.
        stats: of its tokens.
        state: before the step.
        data: what `sample` draws from, by default a `dataset.Dataset`.
        learning_rate: in place of that of `config`.
        entropy_target: in place of that of `config`.
        sample: draws windows like `dataset.sample_windows`.
    """
    window_key, mask_key, dropout_key, noise_key = step_keys(state)
    dropout_key, noise_key = (drawing_key(config, key) for key in (dropout_key, noise_key))
    windows = sample(window_key, data, config.batch_size, model.config.window)
    batch = objective.make_batch(mask_key, config, model, stats, sharding.divide(windows))
    batch = objective.add_noise(noise_key, config, model, batch)

    metrics, grads = objective.loss_and_grads(
        config, model, state.params, batch, entropy_multiplier(config, state), dropout_key
    )
    metrics["train/gradient_norm"] = optax.global_norm(optim.to_vectors(grads))

    optimizer = optim.make_optimizer(config.optim, learning_rate)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    state = state.replace(params=params, opt_state=opt_state, step=state.step + 1)
    if config.optim.average:
        average = optim.update_average(config.optim, state.average, params, state.step)
        state = state.replace(average=average)
    if "train/entropy" in metrics and config.loss.entropy_constraint:
        any_hidden = batch.counts.hidden["actions"] > 0
        state = dual_step(config, state, metrics["train/entropy"], entropy_target, any_hidden)
        metrics["train/sigma"] = jnp.exp(state.log_sigma)
    return state, metrics


def acting(state: TrainState) -> dict:
    """Give the parameters that act: their average where one is trained."""
    return state.params if state.average is None else state.average


def entropy_multiplier(config: PretrainConfig, state: TrainState) -> Array:
    """Give sigma of M3PC equation 2, []."""
    return jnp.exp(state.log_sigma) if config.loss.entropy_constraint else jnp.zeros(())


def dual_step(
    config: PretrainConfig,
    state: TrainState,
    entropy: Array,
    target: float | Array,
    any_hidden: Array,
) -> TrainState:
    """Move sigma; a batch without a hidden action has no entropy, and leaves sigma as it is."""
    optimizer = optax.adam(config.loss.sigma_learning_rate)
    grad = jax.grad(losses.dual_loss)(state.log_sigma, entropy, target)
    update, opt_state = optimizer.update(grad, state.sigma_opt_state)
    new, old = (state.log_sigma + update, opt_state), (state.log_sigma, state.sigma_opt_state)
    log_sigma, opt_state = jax.tree.map(lambda n, o: jnp.where(any_hidden, n, o), new, old)
    return state.replace(log_sigma=log_sigma, sigma_opt_state=opt_state)


def step_keys(state: TrainState) -> Array:
    """Derive the keys of the next step: of windows, masks, dropout and noise, [4]."""
    return jax.random.split(jax.random.fold_in(state.key, state.step), 4)


def drawing_key(config: PretrainConfig, key: Array) -> Array:
    """Turn a key of the step into one of the generator that draws dropout and noise.

    XLA's own generator ("rbg") costs a fraction of threefry, and its numbers depend on the kind of
    device. Under `vmap` it draws for all members from the key of the first: a run of a group has
    other draws than it would have alone, and its draws depend on which runs are beside it.
    """
    if config.prng == "threefry":
        return key
    return jax.random.wrap_key_data(jax.random.bits(key, (4,), jnp.uint32), impl="rbg")
