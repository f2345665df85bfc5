"""Tokens: raw values to model inputs and back, continuous (normalised) or uniformly binned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array

from mtm_jax import distributions
from mtm_jax.types import ModalitySpec

# A dimension that varies by less than this, and by less than this share of its size, is only
# centred: dividing would amplify rounding noise.
MIN_SCALE = 1e-4
_LEAST = 1e-30  # dividing by less leaves float32


class Stats(flax.struct.PyTreeNode):
    """Statistics of one modality over the real steps of the training split; each field is [D]."""

    mean: Array
    std: Array
    min: Array
    max: Array


def identity_stats(dim: int) -> Stats:
    """Statistics under which `encode` and `decode` change nothing."""
    zeros, ones = jnp.zeros(dim), jnp.ones(dim)
    return Stats(mean=zeros, std=ones, min=-ones, max=ones)


def compute_stats(values: Array) -> Stats:
    """Compute the statistics of real steps, [N, D], without any padding."""
    return Stats(mean=values.mean(0), std=values.std(0), min=values.min(0), max=values.max(0))


def scale(stats: Stats) -> Array:
    """Divide centred values by this to normalise them, [D]."""
    return _or_one(stats, stats.std)


def _or_one(stats: Stats, spread: Array) -> Array:
    """Take the spread of each dimension, [D]; 1 where it is constant but for rounding."""
    size = jnp.maximum(jnp.abs(stats.min), jnp.abs(stats.max))
    constant = (spread < MIN_SCALE) & (spread <= MIN_SCALE * size)
    return jnp.where(constant | (spread < _LEAST), 1.0, spread)


def encode(stats: Stats, values: Array) -> Array:
    """Normalise raw values [..., D] to zero mean and unit variance."""
    return (values - stats.mean) / scale(stats)


def decode(stats: Stats, tokens: Array) -> Array:
    """Invert `encode`."""
    return tokens * scale(stats) + stats.mean


def encode_bins(stats: Stats, values: Array, bins: int) -> Array:
    """Turn each dimension into a one-hot token over uniform bins: [..., D] -> [..., D, bins].

    Values outside [min, max] fall into the first or last bin.
    """
    unit = (values - stats.min) / _or_one(stats, stats.max - stats.min)
    index = jnp.clip(jnp.floor(unit * bins), 0, bins - 1).astype(jnp.int32)
    return jax.nn.one_hot(index, bins)


def decode_bins(stats: Stats, logits: Array) -> Array:
    """Return the centre of the most likely bin, in [min, max]: [..., D, bins] -> [..., D]."""
    bins = logits.shape[-1]
    unit = (jnp.argmax(logits, -1) + 0.5) / bins
    # Without `_scale`, so that a constant dimension decodes to its constant.
    return stats.min + unit * (stats.max - stats.min)


def encode_modalities(
    specs: Sequence[ModalitySpec], stats: Mapping[str, Stats], values: Mapping[str, Array]
) -> dict[str, Array]:
    """Turn raw values, modality -> [..., T, D], into the inputs of the model.

    Actions under a TanhNormal head are not normalised, only clipped to the open interval (F17).
    """
    return {spec.name: _encode_one(spec, stats[spec.name], values[spec.name]) for spec in specs}


def _encode_one(spec: ModalitySpec, stats: Stats, values: Array) -> Array:
    if spec.head == "categorical":
        return encode_bins(stats, values, spec.features)
    if spec.head == "tanh_normal":
        return jnp.clip(values, -distributions.ACTION_LIMIT, distributions.ACTION_LIMIT)
    return encode(stats, values)


def decode_prediction(
    spec: ModalitySpec, stats: Stats, prediction: Array | distributions.TanhNormal
) -> Array:
    """Turn outputs of one modality into raw values [..., T, D]; a distribution into its mode."""
    if spec.head == "categorical":
        return decode_bins(stats, prediction)
    if spec.head == "tanh_normal":
        return distributions.mode(prediction)
    return decode(stats, prediction)
