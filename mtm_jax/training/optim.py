"""The optimiser of the trajectory model."""

from __future__ import annotations

import dataclasses

import jax
import optax
from jax import Array

from mtm_jax.config import OptimConfig


def make_schedule(config: OptimConfig, learning_rate: Array | None = None) -> optax.Schedule:
    """Linear warm-up from zero, then a cosine to zero at `total_steps`.

    Args:
        config: settings.
        learning_rate: the peak, where it is only known in the compiled program; else `config`'s.
    """
    if learning_rate is not None:
        shape = make_schedule(dataclasses.replace(config, learning_rate=1.0))
        return lambda count: learning_rate * shape(count)
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.learning_rate,
        warmup_steps=config.warmup_steps,
        decay_steps=max(config.total_steps, config.warmup_steps + 1),
    )


def decay_mask(params: dict) -> dict:
    """True for matrices, the only parameters that weight decay acts on.

    Biases, gains, mask tokens and modality embeddings have the last path element "kernel" nowhere.
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def make_optimizer(
    config: OptimConfig, learning_rate: Array | None = None
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
        return optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw)
    return adamw
