"""Errors of a trajectory model on data that it was not trained on."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax import Array

from mtm_jax import distributions, masks
from mtm_jax.config import PretrainConfig
from mtm_jax.models.trajectory_model import Model
from mtm_jax.training import dataset, losses, objective
from mtm_jax.training.program import Metrics


def make_validation(
    config: PretrainConfig, model: Model, stats: objective.Stats
) -> Callable[[dict, dataset.Dataset, Array], Metrics]:
    """Build `validate(params, data, key)`: errors of hidden tokens on held-out windows.

    Keys are `valid/<pattern>/<modality>`, for the training mixture ("train_masks") every modality,
    for a prompt those it is read for; in token units (a TanhNormal by its mode, in [-1, 1]).
    The same key gives the same windows and masks.
    """
    window = model.config.window
    names = tuple(m.name for m in model.config.modalities)

    def prompt_batch(prompt: str, key: Array, windows: dataset.Windows) -> objective.Batch:
        slots = jax.random.randint(key, (config.batch_size,), 0, window)
        visible = jax.vmap(lambda i: masks.prompt(prompt, i, window))(slots)
        return objective.mask_batch(model, stats, windows, visible)

    @jax.jit
    def validate(params: dict, data: dataset.Dataset, key: Array) -> Metrics:
        window_key, mask_key = jax.random.split(key)
        windows = dataset.sample_windows(window_key, data, config.batch_size, window)
        training_batch = objective.make_batch(mask_key, config, model, stats, windows)
        metrics = hidden_errors(model, params, training_batch, names, "valid/train_masks")
        for prompt in masks.PROMPTS:
            batch = prompt_batch(prompt, mask_key, windows)
            read = tuple(m for m in masks.PREDICTS[prompt] if m in names)
            metrics |= hidden_errors(model, params, batch, read, f"valid/{prompt}")
        return metrics

    return validate


def hidden_errors(
    model: Model, params: dict, batch: objective.Batch, names: tuple[str, ...], prefix: str
) -> Metrics:
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
        error = objective.reconstruction(spec.head, output, target)
        metrics[f"{prefix}/{spec.name}"] = losses.masked_mean(error, hidden)
    return metrics
