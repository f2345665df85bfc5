"""The parts of the model in a training step, which `experiments.bench.breakdown` times.

Each part is a function of its parameters and of activations of the shapes that it has in the step:
`rows` [R, L, C] in the encoder and `whole` [B, L, C] in the decoder, where L counts the tokens of a
window.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from mtm_jax.config import ModelConfig, PretrainConfig
from mtm_jax.models import heads, layout, networks, packing
from mtm_jax.models import trajectory_model as model
from mtm_jax.training import objective
from mtm_jax.types import Tokens

Layer = Callable[[dict, Array], Array]  # parameters and activations of one layer -> activations


def parts(
    settings: PretrainConfig,
    network: model.Model,
    params: dict,
    batch: objective.Batch,
    whole: Array,
) -> dict[str, tuple[Callable, tuple]]:
    """List the parts with their arguments; gradients are taken of the first two of these.

    Args:
        settings: of the training.
        network: the model.
        params: its parameters.
        batch: tokens and masks.
        whole: activations of all tokens, [B, L, C].
    """
    config = network.config
    rows, attention_mask = _encoder_rows(settings.batch_size, config, batch, whole)
    activations = rows, whole
    embeddings = {name: x for name, x in params.items() if "_embed_" in name}
    ends = {name: x for name, x in params.items() if name.startswith("head_")}

    def layers(function: Layer, *names: str) -> tuple[Callable, tuple]:
        return _through_layers(function), (_modules(config, params, *names), activations)

    return {
        "embedding": (functools.partial(embed, config), (embeddings, whole, batch.tokens)),
        "projections": layers(project, "attention"),
        "attention": (functools.partial(mix, config), ({}, activations, attention_mask)),
        "feed-forward": layers(feed_forward, "ffn_in", "ffn_out"),
        "normalisation": layers(normalise, "norm1", "norm2"),
        "heads, losses": (
            functools.partial(finish, settings, network),
            (ends, whole, batch, jax.random.key(0)),
        ),
    }


def embed(config: ModelConfig, params: dict, whole: Array, tokens: Tokens) -> list[Array]:
    """Embed tokens for the encoder and encoded tokens for the decoder."""
    decoded = layout.split(whole, config)
    return [
        linear(params[f"{side}_embed_{name}"], x.astype(whole.dtype))
        for name in decoded
        for side, x in (("encoder", tokens[name]), ("decoder", decoded[name][..., 0, :]))
    ]


def project(layer: dict, x: Array) -> Array:
    """Project to queries, keys and values, and back from the width of their sum."""
    qkv = linear(layer["attention"]["qkv"], x)
    return linear(layer["attention"]["out"], sum(jnp.split(qkv, 3, axis=-1)))


def feed_forward(layer: dict, x: Array) -> Array:
    """Apply the feed-forward block."""
    return linear(layer["ffn_out"], networks.gelu(linear(layer["ffn_in"], x)))


def normalise(layer: dict, x: Array) -> Array:
    """Apply both LayerNorms of a layer."""
    dtype = x.dtype
    for name in ("norm1", "norm2"):
        x = networks.layer_norm(name).apply({"params": layer[name]}, x)
    return x.astype(dtype)


def mix(
    config: ModelConfig, params: dict, activations: tuple[Array, Array], attention_mask: Array
) -> tuple[Array, Array]:
    """Apply the attention of all layers, without projections."""
    rows, whole = activations
    for _ in range(config.encoder_layers):
        rows = attend(rows, config.heads, attention_mask)
    for _ in range(config.decoder_layers):
        whole = attend(whole, config.heads, None)
    return rows, whole


def finish(
    settings: PretrainConfig,
    network: model.Model,
    params: dict,
    whole: Array,
    batch: objective.Batch,
    key: Array,
) -> Array:
    """Predict all tokens and compute the loss."""
    config, outputs = network.config, {}
    for spec in config.modalities:
        head = heads.make_head(spec, config.width, whole.dtype)
        x = layout.split(whole, config)[spec.name][..., 0, :]
        outputs[spec.name] = head.apply({"params": params[f"head_{spec.name}"]}, x)
    batch = objective.add_noise(key, settings, network, batch)
    return objective.loss(settings, network, outputs, batch, jnp.float32(0.1))[0]


def linear(params: dict, x: Array) -> Array:
    """Apply a linear layer in the precision of x."""
    return networks.matmul(x, params["kernel"].astype(x.dtype)) + params["bias"].astype(x.dtype)


def attend(x: Array, heads: int, attention_mask: Array | None) -> Array:
    """Apply attention to tokens [B, L, C] that are queries, keys and values at the same time."""
    split = x.reshape(*x.shape[:-1], heads, -1).swapaxes(-2, -3)  # [B, heads, L, d]
    accumulate = {"preferred_element_type": jnp.float32}
    logits = jnp.einsum("bhqd,bhkd->bhqk", split * split.shape[-1] ** -0.5, split, **accumulate)
    if attention_mask is not None:
        logits = logits + jnp.where(attention_mask, 0.0, -1e9)[:, None]
    weights = jax.nn.softmax(logits).astype(x.dtype)
    mixed = jnp.einsum("bhqk,bhkd->bhqd", weights, split)
    return mixed.swapaxes(-2, -3).reshape(x.shape)


def _encoder_rows(
    size: int, config: ModelConfig, batch: objective.Batch, whole: Array
) -> tuple[Array, Array]:
    """Take activations of the encoder's rows, two windows in each, and what they may attend to."""
    flat = layout.flat_visible(config.modalities, batch.visible)
    if size >= packing.MIN_BATCH and size % 2 == 0:
        return whole[: size // 2], jax.jit(packing.pack)(flat).attention_mask
    return whole, flat[:, None, :]


def _modules(config: ModelConfig, params: dict, *names: str) -> dict[str, list[dict]]:
    """Take the parameters of some modules of every layer: stack -> layers."""
    depths = {"encoder": config.encoder_layers, "decoder": config.decoder_layers}
    return {
        stack: [{n: params[stack][f"layer_{k}"][n] for n in names} for k in range(depth)]
        for stack, depth in depths.items()
    }


def _through_layers(function: Layer) -> Callable:
    """Apply a function in all layers of the encoder and of the decoder."""

    def through(params: dict, activations: tuple[Array, Array]) -> tuple[Array, Array]:
        rows, whole = activations
        for layer in params["encoder"]:
            rows = function(layer, rows)
        for layer in params["decoder"]:
            whole = function(layer, whole)
        return rows, whole

    return through
