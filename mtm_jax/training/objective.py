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
from mtm_jax.models import packing
from mtm_jax.models.trajectory_model import Model
from mtm_jax.training import accumulation, dataset, losses
from mtm_jax.training.program import Metrics
from mtm_jax.types import Tokens, Visible

Stats = Mapping[str, tokens.Stats]


class Counts(NamedTuple):
    """How many steps of each modality a loss is averaged over: modality -> [] float32."""

    counted: Mapping[str, Array]
    hidden: Mapping[str, Array]


class Batch(flax.struct.PyTreeNode):
    """Tokens with their training masks, or a part of such a batch."""

    tokens: Tokens
    visible: Visible  # modality -> [B, T]
    counted: Visible  # modality -> [B, T], True where the loss counts: a real step of that modality
    counts: Counts  # of the whole batch, so that the losses of all parts sum to its losses
    noise: Array | None = None  # [B, K, T, A], standard normal draws of the entropy estimate
    state_noise: Array | None = None  # [B, T, S], what the states that the model sees are off by

    def take(self, windows: Array | None) -> Batch:
        """Hide all windows but some, [B] bool, and count nothing of the others; None: take all."""
        if windows is None:
            return self
        take = lambda rows: {m: x & windows[:, None] for m, x in rows.items()}  # noqa: E731
        return self.replace(visible=take(self.visible), counted=take(self.counted))

    def inputs(self) -> Tokens:
        """Give the tokens that the model sees; values of hidden ones have no influence."""
        if self.state_noise is None:
            return self.tokens
        return {**self.tokens, "states": self.tokens["states"] + self.state_noise}

    def hidden(self, modality: str) -> Array:
        """True where a counted token is hidden, [B, T]."""
        return _hidden(self.visible, self.counted, modality)


def _hidden(visible: Visible, counted: Visible, modality: str) -> Array:
    return counted[modality] & ~visible[modality]


def whole_batch(tokens: Tokens, visible: Visible, counted: Visible) -> Batch:
    """Count the steps that the losses of a batch are averaged over."""
    sums = {m: (counted[m].sum(), _hidden(visible, counted, m).sum()) for m in counted}
    totals = ({m: s[i].astype(jnp.float32) for m, s in sums.items()} for i in range(2))
    return Batch(tokens, visible, counted, Counts(*totals))


def make_batch(
    key: Array, config: PretrainConfig, model: Model, stats: Stats, windows: dataset.Windows
) -> Batch:
    """Encode windows and draw a training mask for each."""
    names, window = [m.name for m in model.config.modalities], model.config.window
    keys = jax.random.split(key, windows.valid.shape[0])
    visible = jax.vmap(lambda k: masks.draw(k, config.masks, window, names))(keys)
    return mask_batch(model, stats, windows, visible)


def mask_batch(model: Model, stats: Stats, windows: dataset.Windows, visible: Visible) -> Batch:
    """Encode windows under given masks; padding and missing modalities are hidden, uncounted."""
    specs = model.config.modalities
    real = {m.name: windows.valid for m in specs}
    counted = masks.hide_missing(real, windows.available)
    encoded = tokens.encode_modalities(specs, stats, windows.values)
    return whole_batch(
        # What is missing may hold anything, even NaN, which would reach the gradient.
        tokens={m: _where_counted(counted[m], x) for m, x in encoded.items()},
        visible={m: visible[m] & counted[m] for m in counted},
        counted=counted,
    )


def _where_counted(counted: Array, encoded: Array) -> Array:
    return jnp.where(counted.reshape(*counted.shape, *[1] * (encoded.ndim - 2)), encoded, 0.0)


def add_noise(key: Array, config: PretrainConfig, model: Model, batch: Batch) -> Batch:
    """Draw the noise on the states, and that of the entropy estimate of a TanhNormal head."""
    if config.state_noise:
        draws = jax.random.normal(jax.random.fold_in(key, 1), batch.tokens["states"].shape)
        batch = batch.replace(state_noise=config.state_noise * draws)
    for spec in model.config.modalities:
        if spec.head == "tanh_normal":
            shape = config.loss.entropy_samples, *batch.tokens[spec.name].shape
            return batch.replace(noise=jnp.moveaxis(jax.random.normal(key, shape), 0, 1))
    return batch


def loss_and_grads(
    config: PretrainConfig, model: Model, params: dict, batch: Batch, sigma: Array, key: Array
) -> tuple[Metrics, dict]:
    """Compute the metrics of a batch and the gradients of its loss.

    Each device computes its block of rows, in micro-batches, where two windows share one sequence
    of the encoder if their visible tokens fit.

    Args:
        config: settings.
        model: the functions of the model.
        params: its parameters.
        batch: the whole batch.
        sigma: multiplier of the entropy, [].
        key: of dropout.
    """

    def of_part(part: Batch, key: Array) -> tuple[Metrics, dict]:
        def of_params(
            params: dict, batch: Batch, packed: packing.Packed | None
        ) -> tuple[Array, Metrics]:
            outputs = model.apply(params, batch.inputs(), batch.visible, key, packed)
            return loss(config, model, outputs, batch, sigma)

        def compute(taken: Array | None, packed: packing.Packed | None) -> tuple[Metrics, dict]:
            grads, metrics = jax.grad(of_params, has_aux=True)(params, part.take(taken), packed)
            return metrics, grads

        return packing.sum_over_turns(model.config.modalities, part.visible, compute)

    return accumulation.sum_over_parts(of_part, batch, key, config.micro_batches)


def loss(
    config: PretrainConfig, model: Model, outputs: dict, batch: Batch, sigma: Array
) -> tuple[Array, Metrics]:
    """Sum the losses of all modalities.

    Squared error or cross-entropy on every counted token, visible or hidden (MTM section 3.2);
    under a TanhNormal head the action loss of M3PC equations 1 and 2.

    Args:
        config: settings.
        model: what computed `outputs`.
        outputs: predictions for `batch`.
        batch: targets, and the noise of the entropy estimate.
        sigma: multiplier of the entropy, [].
    """
    total, metrics = jnp.zeros(()), {}
    for spec in model.config.modalities:
        name = spec.name
        if spec.head == "tanh_normal":
            part, parts = action_loss(config, outputs[name], batch, name, sigma)
            metrics |= parts
        else:
            error = reconstruction(spec.head, outputs[name], batch.tokens[name])
            part = losses.masked_mean(error, batch.counted[name], batch.counts.counted[name])
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
    batch: Batch,
    modality: str,
    sigma: Array,
) -> tuple[Array, Metrics]:
    """M3PC's action loss: likelihood and entropy of hidden actions, error of the visible ones.

    The squared error is averaged over all counted steps, as the released code does.

    Args:
        config: settings.
        dist: predicted actions, [B, T, A].
        batch: targets, and the noise of the entropy estimate.
        modality: whose head is a TanhNormal.
        sigma: multiplier of the entropy, [].
    """
    actions, hidden = batch.tokens[modality], batch.hidden(modality)
    all_counted, all_hidden = (counts[modality] for counts in batch.counts)
    over_dims = jnp.sum if config.loss.entropy_reduction == "joint" else jnp.mean
    nll = over_dims(losses.negative_log_likelihood(dist, actions), axis=-1)
    noise = jnp.moveaxis(batch.noise, 1, 0)
    entropy = over_dims(distributions.entropy(dist, noise), axis=-1)
    error = jnp.where(hidden, 0.0, losses.squared_error(distributions.mode(dist), actions))
    mean_nll = losses.masked_mean(nll, hidden, all_hidden)
    mean_entropy = losses.masked_mean(entropy, hidden, all_hidden)
    mean_error = losses.masked_mean(error, batch.counted[modality], all_counted)
    metrics = {
        "train/nll": mean_nll,
        "train/entropy": mean_entropy,
        "train/visible_actions": mean_error,
    }
    return mean_error + losses.action_lagrangian(mean_nll, mean_entropy, sigma), metrics
