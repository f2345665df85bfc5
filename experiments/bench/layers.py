"""The parts of the model in a training step, as `experiments.bench.parts` times them."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from mtm_jax.config import PretrainConfig
from mtm_jax.models import heads, layout, networks
from mtm_jax.models import packing as gathering
from mtm_jax.models import trajectory_model as model
from mtm_jax.training import objective
from mtm_jax.types import Tokens


def parts(
    settings: PretrainConfig,
    network: model.Model,
    params: dict,
    batch: objective.Batch,
    whole: Array,
) -> dict[str, tuple[Callable, tuple]]:
    """List functions of parameters and activations; whatever follows these is no variable.

    Args:
        settings: of the training.
        network: the model.
        params: its parameters.
        batch: tokens and masks.
        whole: activations of all tokens, [B, L, C]; the encoder works on rows of two windows each.
    """
    config, size = network.config, settings.batch_size
    flat = layout.flat_visible(config.modalities, batch.visible)
    paired = size >= gathering.SMALLEST_BATCH and size % 2 == 0
    rows = whole[: size // 2] if paired else whole
    readable = jax.jit(gathering.pair)(flat)[0].readable if paired else flat[:, None, :]
    activations = rows, whole

    def embed(params: dict, whole: Array, tokens: Tokens) -> list[Array]:
        decoded = layout.split(whole, config)
        return [
            linear(params[f"{side}_embed_{name}"], x.astype(whole.dtype))
            for name in decoded
            for side, x in (("encoder", tokens[name]), ("decoder", decoded[name][..., 0, :]))
        ]

    def project(layer: dict, x: Array) -> Array:
        qkv = linear(layer["attention"]["qkv"], x)
        return linear(layer["attention"]["out"], sum(jnp.split(qkv, 3, axis=-1)))

    def feed_forward(layer: dict, x: Array) -> Array:
        return linear(layer["ffn_out"], networks.gelu(linear(layer["ffn_in"], x)))

    def normalise(layer: dict, x: Array) -> Array:
        for name in ("norm1", "norm2"):
            x = networks.layer_norm(name).apply({"params": layer[name]}, x)
        return x.astype(whole.dtype)

    def mix(params: dict, activations: tuple, readable: Array) -> tuple:
        rows, whole = activations
        for _ in range(config.encoder_layers):
            rows = attend(rows, config.heads, readable)
        for _ in range(config.decoder_layers):
            whole = attend(whole, config.heads, None)
        return rows, whole

    def finish(params: dict, whole: Array, batch: objective.Batch, key: Array) -> Array:
        outputs = {}
        for spec in config.modalities:
            head = heads.make_head(spec, config.width, whole.dtype)
            x = layout.split(whole, config)[spec.name][..., 0, :]
            outputs[spec.name] = head.apply({"params": params[f"head_{spec.name}"]}, x)
        batch = objective.add_noise(key, settings, network, batch)
        return objective.loss(settings, network, outputs, batch, jnp.float32(0.1))[0]

    embeddings = {name: x for name, x in params.items() if "_embed_" in name}
    ends = {name: x for name, x in params.items() if name.startswith("head_")}
    attention, ffn, norms = (
        (_only(network, params, *names), activations)
        for names in (("attention",), ("ffn_in", "ffn_out"), ("norm1", "norm2"))
    )
    return {
        "embedding": (embed, (embeddings, whole, batch.tokens)),
        "projections": (_through_layers(project), attention),
        "attention": (mix, ({}, activations, readable)),
        "feed-forward": (_through_layers(feed_forward), ffn),
        "normalisation": (_through_layers(normalise), norms),
        "heads, losses": (finish, (ends, whole, batch, jax.random.key(0))),
    }


def _only(network: model.Model, params: dict, *names: str) -> dict:
    """Take some modules of every layer."""
    config = network.config
    return {
        stack: [{n: params[stack][f"layer_{k}"][n] for n in names} for k in range(layers)]
        for stack, layers in (
            ("encoder", config.encoder_layers),
            ("decoder", config.decoder_layers),
        )
    }


def linear(params: dict, x: Array) -> Array:
    """Apply a linear layer in the precision of x."""
    return networks.product(x, params["kernel"].astype(x.dtype)) + params["bias"].astype(x.dtype)


def attend(x: Array, heads: int, readable: Array | None) -> Array:
    """Let tokens [B, L, C] that are queries, keys and values read each other."""
    split = x.reshape(*x.shape[:-1], heads, -1).swapaxes(-2, -3)  # [B, heads, L, d]
    product = {"preferred_element_type": jnp.float32}
    logits = jnp.einsum("bhqd,bhkd->bhqk", split * split.shape[-1] ** -0.5, split, **product)
    if readable is not None:
        logits = logits + jnp.where(readable, 0.0, -1e9)[:, None]
    weights = jax.nn.softmax(logits).astype(x.dtype)
    mixed = jnp.einsum("bhqk,bhkd->bhqd", weights, split)
    return mixed.swapaxes(-2, -3).reshape(x.shape)


def _through_layers(function: Callable[[dict, Array], Array]) -> Callable:
    """Apply what a layer does in all layers of the encoder and of the decoder."""

    def through(params: dict, activations: tuple[Array, Array]) -> tuple[Array, Array]:
        rows, whole = activations
        for layer in params["encoder"]:
            rows = function(layer, rows)
        for layer in params["decoder"]:
            whole = function(layer, whole)
        return rows, whole

    return through
