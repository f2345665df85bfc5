"""The order of a window's tokens in one sequence: modality by modality, step by step."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array

from mtm_jax.config import ModelConfig
from mtm_jax.types import ModalitySpec, Visible


def token_shape(spec: ModalitySpec, window: int) -> tuple[int, ...]:
    """Return the shape of one modality's tokens in one window: (T, D), categorical (T, P, D)."""
    if spec.head == "categorical":
        return (window, spec.tokens_per_step, spec.features)
    return (window, spec.features)


def flat_visible(specs: Sequence[ModalitySpec], visible: Visible) -> Array:
    """Repeat the masks for every token: modality -> [..., T] to [..., sum T P]."""
    return jnp.concatenate([jnp.repeat(visible[m.name], m.tokens_per_step, -1) for m in specs], -1)


def join(parts: Sequence[Array]) -> Array:
    """Concatenate [..., T P, C] per modality to [..., sum T P, C]."""
    return jnp.concatenate(parts, axis=-2)


def split(flat: Array, config: ModelConfig) -> dict[str, Array]:
    """Cut [..., sum T P, C] into modality -> [..., T, P, C]."""
    parts, start = {}, 0
    for spec in config.modalities:
        stop = start + config.window * spec.tokens_per_step
        shape = (*flat.shape[:-2], config.window, spec.tokens_per_step, flat.shape[-1])
        parts[spec.name] = flat[..., start:stop, :].reshape(shape)
        start = stop
    return parts
