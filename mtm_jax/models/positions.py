"""Fixed embeddings of the slots of a window."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from mtm_jax.config import ModelConfig


def sinusoidal_positions(window: int, width: int) -> Array:
    """Fixed embedding of the window slot, [T, C]: half of [sin | cos], as released."""
    rates = 10_000.0 ** (-jnp.arange(width // 2) / (width // 2))
    angles = jnp.arange(window)[:, None] * rates
    return 0.5 * jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def orthogonal_positions(window: int, width: int) -> Array:
    """Fixed embedding of the window slot, [T, C], orthogonal between different slots.

    [sin | cos] with rates spread evenly up to pi. Under the released embedding neighbouring slots
    are nearly the same vector, so attention is slow to learn which action belongs to which state.
    """
    rates = jnp.pi * (jnp.arange(width // 2) + 0.5) / (width // 2)
    angles = jnp.arange(window)[:, None] * rates
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def make_positions(config: ModelConfig) -> Array:
    """Make the embedding of window slots that the configuration names, [T, C]."""
    make = {"released": sinusoidal_positions, "orthogonal": orthogonal_positions}
    return make[config.positions](config.window, config.width)
