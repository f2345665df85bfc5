"""Errors of a trajectory model on data that it was not trained on."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
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

    read = {"train_masks": names, **{prompt: masks.PREDICTS[prompt] for prompt in masks.PROMPTS}}

    def draw_masks(key: Array, windows: dataset.Windows) -> dict[str, Array]:
        """Mask the windows as in training and by every prompt, [patterns, B, T] each."""
        drawn = objective.make_batch(key, config, model, stats, windows).visible
        slots = jax.random.randint(key, (config.batch_size,), 0, window)
        prompts = [
            jax.vmap(lambda i, name=name: masks.prompt(name, i, window))(slots)
            for name in masks.PROMPTS
        ]
        return {m: jnp.stack([drawn[m], *(prompt[m] for prompt in prompts)]) for m in names}

    @jax.jit
    def validate(params: dict, data: dataset.Dataset, key: Array) -> Metrics:
        window_key, mask_key = jax.random.split(key)
        windows = dataset.sample_windows(window_key, data, config.batch_size, window)

        def measure(visible: dict[str, Array]) -> dict[str, Metrics]:
            batch = objective.mask_batch(model, stats, windows, visible)
            return hidden_errors(model, params, batch)

        # One program for all patterns, one after the other: it compiles in a fraction of the time.
        found = jax.lax.map(measure, draw_masks(mask_key, windows))
        return {
            f"valid/{pattern}/{error}": values[k]
            for k, (pattern, modalities) in enumerate(read.items())
            for name in modalities
            for error, values in found.get(name, {}).items()
        }

    return validate


def hidden_errors(model: Model, params: dict, batch: objective.Batch) -> dict[str, Metrics]:
    """Mean reconstruction error over hidden tokens: modality -> errors, each [].

    An error has the name of its modality; the likelihood of a TanhNormal is "nll".
    """
    outputs = model.apply(params, batch.tokens, batch.visible)
    errors = {}
    for spec in model.config.modalities:
        output, target = outputs[spec.name], batch.tokens[spec.name]
        hidden, found = batch.hidden(spec.name), {}
        if spec.head == "tanh_normal":
            nll = losses.negative_log_likelihood(output, target).sum(-1)
            found["nll"] = losses.masked_mean(nll, hidden)
            output = distributions.mode(output)
        error = objective.reconstruction(spec.head, output, target)
        found[spec.name] = losses.masked_mean(error, hidden)
        errors[spec.name] = found
    return errors
