"""Masked pretraining, MTM (squared errors) and M3PC (action likelihood with bounded entropy).

One step: draw windows -> encode tokens -> draw a mask per window -> reconstruct -> losses
-> AdamW step on the parameters -> Adam step on the multiplier sigma (TanhNormal head only).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array

from mtm_jax import (
    accumulation,
    dataset,
    distributions,
    gathering,
    losses,
    masks,
    optim,
    tokens,
    training,
)
from mtm_jax.config import PretrainConfig
from mtm_jax.errors import UserError
from mtm_jax.model import Model
from mtm_jax.types import Tokens, Visible

Stats = Mapping[str, tokens.Stats]


class TrainState(flax.struct.PyTreeNode):
    """Everything that a restart needs."""

    params: dict
    opt_state: optax.OptState
    log_sigma: Array  # log of the entropy multiplier, []
    sigma_opt_state: optax.OptState
    key: Array  # folded with `step`, never advanced
    step: Array  # optimiser steps done, [] int32


class Batch(flax.struct.PyTreeNode):
    """Tokens with the masks they are trained under."""

    tokens: Tokens
    visible: Visible  # modality -> [B, T]
    counted: Visible  # modality -> [B, T], True where the loss counts: a real step of that modality

    def hidden(self, modality: str) -> Array:
        """True where a counted token is hidden, [B, T]."""
        return self.counted[modality] & ~self.visible[modality]


class Counts(NamedTuple):
    """How many steps of each modality the losses are averages over: modality -> []."""

    counted: Mapping[str, Array]
    hidden: Mapping[str, Array]


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
        batch = make_batch(mask_key, config, model, stats, windows, axis)

        sigma = jnp.exp(state.log_sigma) if config.loss.entropy_constraint else jnp.zeros(())
        noise = draw_noise(noise_key, config, model, batch, axis)
        whole = accumulation.sum_over(count(batch), axis)

        def gradients(part: tuple[Batch, Array | None], key: Array) -> tuple[dict, dict]:
            batch, noise = part

            def compute(pairs: gathering.Pairs | None) -> tuple[dict, training.Metrics]:
                def total(params: dict) -> tuple[Array, training.Metrics]:
                    outputs = model.apply(params, batch.tokens, batch.visible, key, pairs)
                    return loss(config, model, outputs, batch, sigma, noise, whole)

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


def make_batch(
    key: Array,
    config: PretrainConfig,
    model: Model,
    stats: Stats,
    windows: dataset.Windows,
    axis: str | None = None,
) -> Batch:
    """Encode windows, this device's, and draw one training mask for each."""
    names = [m.name for m in model.config.modalities]
    keys = jax.random.split(key, windows.valid.shape[0] * accumulation.parts_of(axis))
    keys = accumulation.own_part(keys, axis)
    window = model.config.window
    visible = jax.vmap(lambda k: masks.draw(k, config.masks, window, names))(keys)
    return mask_batch(model, stats, windows, visible)


def mask_batch(model: Model, stats: Stats, windows: dataset.Windows, visible: Visible) -> Batch:
    """Encode windows under given masks; padding and missing modalities are hidden, uncounted."""
    specs = model.config.modalities
    real = {m.name: windows.valid for m in specs}
    counted = masks.hide_missing(real, windows.available)
    encoded = tokens.encode_modalities(specs, stats, windows.values)
    return Batch(
        # What is missing may hold anything, NaN too, which would reach the gradient.
        tokens={m: _where_counted(counted[m], x) for m, x in encoded.items()},
        visible={m: visible[m] & counted[m] for m in counted},
        counted=counted,
    )


def _where_counted(counted: Array, encoded: Array) -> Array:
    return jnp.where(counted.reshape(*counted.shape, *[1] * (encoded.ndim - 2)), encoded, 0.0)


def count(batch: Batch) -> Counts:
    """Count the steps of a batch that its losses are averages over."""
    sums = {m: (batch.counted[m].sum(), batch.hidden(m).sum()) for m in batch.counted}
    counted, hidden = ({m: s[i].astype(jnp.float32) for m, s in sums.items()} for i in range(2))
    return Counts(counted, hidden)


def draw_noise(
    key: Array, config: PretrainConfig, model: Model, batch: Batch, axis: str | None = None
) -> Array | None:
    """Draw the standard normal noise of the entropy estimate, [B, K, T, A], where there is one."""
    for spec in model.config.modalities:
        if spec.head == "tanh_normal":
            rows, *shape = batch.tokens[spec.name].shape
            shape = config.loss.entropy_samples, rows * accumulation.parts_of(axis), *shape
            noise = jnp.moveaxis(jax.random.normal(key, shape), 0, 1)
            return accumulation.own_part(noise, axis)
    return None


def loss(
    config: PretrainConfig,
    model: Model,
    outputs: dict,
    batch: Batch,
    sigma: Array,
    noise: Array | None,
    whole: Counts | None = None,
) -> tuple[Array, training.Metrics]:
    """Sum the losses of all modalities.

    Squared error or cross-entropy on every counted token, visible or hidden (MTM section 3.2);
    under a TanhNormal head the action loss of M3PC equations 1 and 2.

    Args:
        config: settings.
        model: what computed `outputs`.
        outputs: predictions for `batch`.
        batch: targets.
        sigma: multiplier of the entropy, [].
        noise: `draw_noise`.
        whole: counts of the batch that this one is a part of: the losses and metrics of all parts
            sum to those of the whole.
    """
    whole = count(batch) if whole is None else whole
    total, metrics = jnp.zeros(()), {}
    for spec in model.config.modalities:
        name = spec.name
        counted, target, output = batch.counted[name], batch.tokens[name], outputs[name]
        if spec.head == "tanh_normal":
            hidden, counts = batch.hidden(name), (whole.counted[name], whole.hidden[name])
            draws = jnp.moveaxis(noise, 1, 0)
            part, parts = action_loss(config, output, target, counted, hidden, sigma, draws, counts)
            metrics |= parts
        else:
            error = reconstruction(spec.head, output, target)
            part = losses.masked_mean(error, counted, whole.counted[name])
        total += part
        metrics[f"train/{name}"] = part
    metrics["train/loss"] = total
    return total, metrics


def reconstruction(head: str, output: Array, target: Array) -> Array:
    """Per-step reconstruction loss in token units, [..., T]."""
    return (losses.cross_entropy if head == "categorical" else losses.squared_error)(output, target)


def action_loss(
    config: PretrainConfig,
    dist: distributions.TanhNormal,
    actions: Array,  # [B, T, A]
    counted: Array,  # [B, T]
    hidden: Array,  # [B, T]
    sigma: Array,
    noise: Array,  # [K, B, T, A], standard normal draws of the entropy estimate
    counts: tuple[Array | None, Array | None] = (None, None),  # of the whole, counted and hidden
) -> tuple[Array, training.Metrics]:
    """M3PC's action loss: likelihood and entropy of hidden actions, error of the visible ones.

    The squared error is averaged over all counted steps, as the released code does.
    """
    all_counted, all_hidden = counts
    over_dims = jnp.sum if config.loss.entropy_reduction == "joint" else jnp.mean
    nll = over_dims(losses.negative_log_likelihood(dist, actions), axis=-1)
    entropy = over_dims(distributions.entropy(dist, noise), axis=-1)
    error = losses.squared_error(distributions.mode(dist), actions)
    mean_nll = losses.masked_mean(nll, hidden, all_hidden)
    mean_entropy = losses.masked_mean(entropy, hidden, all_hidden)
    mean_error = losses.masked_mean(jnp.where(hidden, 0.0, error), counted, all_counted)
    metrics = {
        "train/nll": mean_nll,
        "train/entropy": mean_entropy,
        "train/visible_actions": mean_error,
    }
    return mean_error + losses.action_lagrangian(mean_nll, mean_entropy, sigma), metrics


def make_validation(
    config: PretrainConfig, model: Model, stats: Stats
) -> Callable[[dict, dataset.Dataset, Array], training.Metrics]:
    """Build `validate(params, data, key)`: errors of hidden tokens on held-out windows.

    Keys are `valid/<pattern>/<modality>`, for the training mixture ("train_masks") every modality,
    for a prompt those it is read for; in token units (a TanhNormal by its mode, in [-1, 1]).
    The same key gives the same windows and masks.
    """
    window = model.config.window
    names = tuple(m.name for m in model.config.modalities)

    def prompt_batch(prompt: str, key: Array, windows: dataset.Windows) -> Batch:
        slots = jax.random.randint(key, (config.batch_size,), 0, window)
        visible = jax.vmap(lambda i: masks.prompt(prompt, i, window))(slots)
        return mask_batch(model, stats, windows, visible)

    @jax.jit
    def validate(params: dict, data: dataset.Dataset, key: Array) -> training.Metrics:
        window_key, mask_key = jax.random.split(key)
        windows = dataset.sample_windows(window_key, data, config.batch_size, window)
        training_batch = make_batch(mask_key, config, model, stats, windows)
        metrics = hidden_errors(model, params, training_batch, names, "valid/train_masks")
        for prompt in masks.PROMPTS:
            batch = prompt_batch(prompt, mask_key, windows)
            read = tuple(m for m in masks.PREDICTS[prompt] if m in names)
            metrics |= hidden_errors(model, params, batch, read, f"valid/{prompt}")
        return metrics

    return validate


def hidden_errors(
    model: Model, params: dict, batch: Batch, names: tuple[str, ...], prefix: str
) -> training.Metrics:
    """Mean reconstruction error over hidden tokens of the named modalities."""
    outputs = model.apply(params, batch.tokens, batch.visible)
    metrics = {}
    for spec in model.config.modalities:
        if spec.name not in names:
            continue
        output, target = outputs[spec.name], batch.tokens[spec.name]
        hidden = batch.hidden(spec.name)
        if spec.head == "tanh_normal":
            nll = losses.negative_log_likelihood(output, target).sum(-1)
            metrics[f"{prefix}/nll"] = losses.masked_mean(nll, hidden)
            output = distributions.mode(output)
        error = reconstruction(spec.head, output, target)
        metrics[f"{prefix}/{spec.name}"] = losses.masked_mean(error, hidden)
    return metrics
