"""What pretraining minimises: masked batches, and the losses of MTM and M3PC on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array

from mtm_jax import distributions, masks, tokens
from mtm_jax.config import PretrainConfig
from mtm_jax.models.trajectory_model import Model
from mtm_jax.training import accumulation, dataset, losses
from mtm_jax.training import trainer as training
from mtm_jax.types import Tokens, Visible

Stats = Mapping[str, tokens.Stats]


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
