"""Losses of the trajectory model and of IQL. Per-element values; the caller reduces."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
from jax import Array

from mtm_jax import distributions

ADVANTAGE_WEIGHT_LIMIT = 100.0


def squared_error(prediction: Array, target: Array) -> Array:
    """Mean squared error over the features of each step: [..., T, D] -> [..., T]."""
    chex.assert_equal_shape([prediction, target])
    return jnp.mean((prediction - target) ** 2, axis=-1)


def cross_entropy(logits: Array, one_hot: Array) -> Array:
    """Mean cross-entropy over the tokens of each step: [..., T, P, D] -> [..., T]."""
    chex.assert_equal_shape([logits, one_hot])
    return jnp.mean(-jnp.sum(one_hot * jax.nn.log_softmax(logits), -1), axis=-1)


def negative_log_likelihood(dist: distributions.TanhNormal, actions: Array) -> Array:
    """-log p(a) per action dimension (M3PC equation 1): [..., T, A] -> [..., T, A]."""
    limit = distributions.ACTION_LIMIT
    return -distributions.log_prob(dist, jnp.clip(actions, -limit, limit))


def masked_mean(values: Array, weights: Array, count: Array | None = None) -> Array:
    """Mean of `values` where `weights` is one; zero if it is nowhere.

    Args:
        values: [...].
        weights: bool or float, the shape of `values`.
        count: where these are a part of something, the sum of all weights of the whole, []: the
            results of all parts sum to its mean.
    """
    chex.assert_equal_shape([values, weights])
    weights = weights.astype(values.dtype)
    # `where` keeps non-finite values of excluded elements out of the sum.
    total = jnp.sum(jnp.where(weights > 0, values, 0.0) * weights)
    return total / jnp.maximum(jnp.sum(weights) if count is None else count, 1.0)


def action_lagrangian(nll: Array, entropy: Array, sigma: Array) -> Array:
    """The primal side of M3PC equation 2: J - sigma H, sigma held fixed."""
    return nll - jax.lax.stop_gradient(sigma) * entropy


def dual_loss(log_sigma: Array, entropy: Array, entropy_target: float) -> Array:
    """The dual side of M3PC equation 2: sigma (H - beta), minimised over log sigma.

    sigma rises while the entropy is below its target and falls towards zero above it.
    """
    return jnp.exp(log_sigma) * (jax.lax.stop_gradient(entropy) - entropy_target)


def expectile_error(difference: Array, expectile: float) -> Array:
    """Asymmetric squared error |tau - 1[u < 0]| u^2 (IQL equation 5): [...] -> [...].

    Args:
        difference: u, the target less the prediction.
        expectile: tau; 0.5 gives half the squared error, more leans towards large targets.
    """
    weight = jnp.where(difference < 0, 1.0 - expectile, expectile)
    return weight * difference**2


def advantage_weighted(log_prob: Array, advantage: Array, temperature: float) -> Array:
    """-min(exp(beta A), 100) log pi(a | s), the weight held fixed (IQL equation 7).

    Args:
        log_prob: joint log density of the data's actions, [...].
        advantage: A, [...].
        temperature: beta; 0 is behaviour cloning.
    """
    chex.assert_equal_shape([log_prob, advantage])
    limit = jnp.log(ADVANTAGE_WEIGHT_LIMIT)  # limited before the exponential, which overflows
    weight = jnp.exp(jnp.minimum(temperature * advantage, limit))
    return -jax.lax.stop_gradient(weight) * log_prob
