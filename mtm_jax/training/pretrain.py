"""Masked pretraining, MTM (squared errors) and M3PC (action likelihood with bounded entropy).

One step: draw windows -> encode tokens -> draw a mask per window -> reconstruct -> losses
-> AdamW step on the parameters -> Adam step on the multiplier sigma (TanhNormal head only).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array

from mtm_jax.config import PretrainConfig
from mtm_jax.errors import UserError
from mtm_jax.models import packing as gathering
from mtm_jax.models.trajectory_model import Model
from mtm_jax.training import accumulation, dataset, losses, objective, optim
from mtm_jax.training import trainer as training

Stats = objective.Stats


class TrainState(flax.struct.PyTreeNode):
    """Everything that a restart needs."""

    params: dict
    opt_state: optax.OptState
    log_sigma: Array  # log of the entropy multiplier, []
    sigma_opt_state: optax.OptState
    key: Array  # folded with `step`, never advanced
    step: Array  # optimiser steps done, [] int32


class Varied(NamedTuple):
    """What trainings of one group may differ in; None: as the configuration says."""

    learning_rate: Array | None = None
    entropy_target: Array | None = None


def make_trainer(
    config: PretrainConfig, model: Model, stats: Stats, axis: str | None = None
) -> training.Trainer:
    """Build the training program; `run` takes a `dataset.Dataset` made for the model's window.

    Args:
        config, model, stats: what is trained.
        axis: of a mesh over which each batch is divided, for `sharding.over_devices`.
    """
    step = _make_step(config, model, stats, axis=axis)
    return training.make_trainer(_make_init(config, model), lambda s, d: step(s, d, Varied()))


def make_group_trainer(
    configs: Sequence[PretrainConfig],
    model: Model,
    stats: Stats,
    axis: str | None = None,
    members_axis: str | None = None,
) -> training.Trainer:
    """Build one program of several trainings; `init` takes their keys, [M].

    Each computes what its own program would, up to rounding.

    Args:
        configs: of each; they may differ in the learning rate and the entropy target.
        model, stats: of all.
        axis: see `make_trainer`.
        members_axis: of a mesh over which the trainings are divided.

    Raises:
        UserError: the configurations differ in something else.
    """
    first = configs[0]
    varied = [(c.optim.learning_rate, c.loss.entropy_target) for c in configs]
    for config, (rate, target) in zip(configs, varied, strict=True):
        loss = dataclasses.replace(first.loss, entropy_target=target)
        optim_config = dataclasses.replace(first.optim, learning_rate=rate)
        if config != dataclasses.replace(first, loss=loss, optim=optim_config):
            raise UserError(
                "trainings of one program may differ in the learning rate and the entropy target "
                f"only, and these differ in more: {first} and {config}"
            )
    # What is alike stays a constant of the program.
    rates, targets = (
        jnp.asarray(values) if len(set(values)) > 1 else None
        for values in zip(*varied, strict=True)
    )
    step = _make_step(first, model, stats, training.GROUP, axis)
    varied = Varied(rates, targets)
    return training.make_group_trainer(_make_init(first, model), step, varied, members_axis)


def _make_init(config: PretrainConfig, model: Model) -> Callable[[Array], TrainState]:
    optimizer = optim.make_optimizer(config.optim)
    sigma_optimizer = optax.adam(config.loss.sigma_learning_rate)

    def init(key: Array) -> TrainState:
        init_key, run_key = jax.random.split(key)
        params = model.init(init_key)
        log_sigma = jnp.log(jnp.asarray(config.loss.initial_sigma))
        return TrainState(
            params=params,
            opt_state=optimizer.init(params),
            log_sigma=log_sigma,
            sigma_opt_state=sigma_optimizer.init(log_sigma),
            key=run_key,
            step=jnp.zeros((), jnp.int32),
        )

    return init


def _make_step(
    config: PretrainConfig,
    model: Model,
    stats: Stats,
    group: str | None = None,
    axis: str | None = None,
) -> training.GroupStepFn:
    sigma_optimizer = optax.adam(config.loss.sigma_learning_rate)

    def step(
        state: TrainState, data: dataset.Dataset, varied: Varied
    ) -> tuple[TrainState, training.Metrics]:
        window_key, mask_key, dropout_key, noise_key = step_keys(state)
        index = dataset.draw_windows(window_key, data, config.batch_size)
        index = accumulation.own_part(index, axis)
        windows = dataset.take_windows(data, index, model.config.window)
        batch = objective.make_batch(mask_key, config, model, stats, windows, axis)

        sigma = jnp.exp(state.log_sigma) if config.loss.entropy_constraint else jnp.zeros(())
        noise = objective.draw_noise(noise_key, config, model, batch, axis)
        whole = accumulation.sum_over(objective.count(batch), axis)

        def gradients(part: tuple[objective.Batch, Array | None], key: Array) -> tuple[dict, dict]:
            batch, noise = part

            def compute(pairs: gathering.Pairs | None) -> tuple[dict, training.Metrics]:
                def total(params: dict) -> tuple[Array, training.Metrics]:
                    outputs = model.apply(params, batch.tokens, batch.visible, key, pairs)
                    return objective.loss(config, model, outputs, batch, sigma, noise, whole)

                return jax.grad(total, has_aux=True)(state.params)

            return gathering.in_pairs_if_they_fit(
                model.config.modalities, batch.visible, compute, group
            )

        dropout_key = accumulation.own_key(dropout_key, axis)
        parts = accumulation.over_parts(
            gradients, (batch, noise), dropout_key, config.micro_batches
        )
        grads, metrics = accumulation.sum_over(parts, axis)
        optimizer = optim.make_optimizer(config.optim, varied.learning_rate)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        metrics["train/gradient_norm"] = optax.global_norm(grads)
        state = state.replace(
            params=optax.apply_updates(state.params, updates), opt_state=opt_state
        )
        if "train/entropy" in metrics and config.loss.entropy_constraint:
            target = varied.entropy_target
            target = config.loss.entropy_target if target is None else target
            known = whole.hidden["actions"] > 0
            state = dual_step(state, metrics["train/entropy"], target, known)
            metrics["train/sigma"] = jnp.exp(state.log_sigma)
        return state.replace(step=state.step + 1), metrics

    def dual_step(
        state: TrainState, entropy: Array, target: Array | float, known: Array
    ) -> TrainState:
        """Move sigma where the entropy is known: without a hidden action there is none."""
        grad = jax.grad(losses.dual_loss)(state.log_sigma, entropy, target)
        update, opt_state = sigma_optimizer.update(grad, state.sigma_opt_state)
        new, old = (state.log_sigma + update, opt_state), (state.log_sigma, state.sigma_opt_state)
        log_sigma, opt_state = jax.tree.map(lambda n, o: jnp.where(known, n, o), new, old)
        return state.replace(log_sigma=log_sigma, sigma_opt_state=opt_state)

    return step


def step_keys(state: TrainState) -> Array:
    """Draw the keys of the next step: of windows, masks, dropout and entropy, [4]."""
    return jax.random.split(jax.random.fold_in(state.key, state.step), 4)
