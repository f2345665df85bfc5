"""Reconstruction losses and the entropy Lagrangian."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtm_jax import distributions
from mtm_jax.training import losses

DIST = distributions.TanhNormal(jnp.array([[0.3, -1.0]]), jnp.array([[-0.5, 0.2]]))


def test_squared_error_averages_over_features():
    error = losses.squared_error(jnp.array([[1.0, 2.0], [0.0, 0.0]]), jnp.array([[0.0, 0.0]] * 2))
    np.testing.assert_allclose(error, [2.5, 0.0])


def test_cross_entropy_of_indifferent_logits_is_the_log_of_the_bins():
    one_hot = jnp.eye(8)[jnp.array([[0, 3], [5, 7]])]
    np.testing.assert_allclose(
        losses.cross_entropy(jnp.full((2, 2, 8), 4.0), one_hot), np.log(8.0), rtol=1e-6
    )


def test_cross_entropy_of_certain_logits_is_zero_where_right_and_the_margin_where_wrong():
    one_hot = jnp.eye(3)[jnp.array([[1]])]
    np.testing.assert_allclose(losses.cross_entropy(50 * one_hot, one_hot), [0.0], atol=1e-6)
    np.testing.assert_allclose(losses.cross_entropy(-50 * one_hot, one_hot), [50.0 + np.log(2)])


def test_negative_log_likelihood_mirrors_the_log_density_inside_the_bounds():
    actions = jnp.array([[0.2, -0.9]])
    np.testing.assert_allclose(
        losses.negative_log_likelihood(DIST, actions), -distributions.log_prob(DIST, actions)
    )


@pytest.mark.parametrize("action", [-1.0, 1.0])
def test_negative_log_likelihood_at_the_bounds_is_finite_with_its_gradient(action):
    actions = jnp.full((1, 2), action)

    def loss(dist):
        return losses.negative_log_likelihood(dist, actions).sum()

    value, slope = jax.value_and_grad(loss)(DIST)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in slope)


def test_masked_mean_averages_the_selected_elements():
    values, selected = jnp.array([1.0, 2.0, 3.0, 8.0]), jnp.array([True, False, True, True])
    assert losses.masked_mean(values, selected) == 4.0
    assert losses.masked_mean(values, selected.astype(jnp.float32)) == 4.0


def test_masked_mean_of_nothing_is_zero_with_zero_gradient():
    value, slope = jax.value_and_grad(losses.masked_mean)(jnp.ones(3), jnp.zeros(3, bool))
    assert value == 0.0
    np.testing.assert_array_equal(slope, 0.0)


def test_masked_mean_ignores_non_finite_elements_that_are_not_selected():
    values = jnp.array([jnp.nan, 2.0, jnp.inf])
    value, slope = jax.value_and_grad(losses.masked_mean)(values, jnp.array([False, True, False]))
    assert value == 2.0
    np.testing.assert_array_equal(slope, [0.0, 1.0, 0.0])


def test_lagrangian_rewards_entropy_by_sigma_and_holds_sigma_fixed():
    slopes = jax.grad(losses.action_lagrangian, argnums=(0, 1, 2))(1.0, 2.0, 0.25)
    assert slopes == (1.0, -0.25, 0.0)
    assert losses.action_lagrangian(1.0, 2.0, 0.25) == 0.5


@pytest.mark.parametrize(("entropy", "direction"), [(-1.0, -1), (-5.0, 1)])
def test_sigma_falls_above_the_entropy_target_and_rises_below_it(entropy, direction):
    log_sigma = jnp.log(0.1)
    optimizer = optax.adam(1e-2)
    state = optimizer.init(log_sigma)
    history = [log_sigma]
    for _ in range(5):
        slope = jax.grad(losses.dual_loss)(history[-1], entropy, -3.0)
        update, state = optimizer.update(slope, state)
        history.append(history[-1] + update)
    assert (direction * np.diff(history) > 0).all()


def test_sigma_rests_at_the_entropy_target_and_the_entropy_gets_no_gradient():
    at_target = jax.grad(losses.dual_loss, argnums=(0, 1))(jnp.log(0.1), -3.0, -3.0)
    assert at_target == (0.0, 0.0)
    assert jax.grad(losses.dual_loss, argnums=1)(jnp.log(0.1), 5.0, -3.0) == 0.0


def test_the_expectile_error_weighs_both_signs():
    error = losses.expectile_error(jnp.array([2.0, -2.0, 0.0]), 0.7)
    np.testing.assert_allclose(error, [0.7 * 4, 0.3 * 4, 0.0], rtol=1e-6)
    difference = jnp.linspace(-1, 1, 5)
    half = losses.expectile_error(difference, 0.5)
    np.testing.assert_allclose(half, 0.5 * difference**2, rtol=1e-6)


def test_the_least_expectile_error_is_at_the_expectile():
    """Of zeros and ones, equally often, the expectile tau is tau."""
    slope = jax.grad(lambda v, tau: losses.expectile_error(jnp.array([0.0, 1.0]) - v, tau).sum())
    for tau in (0.3, 0.5, 0.9):
        assert slope(tau, tau) == pytest.approx(0.0, abs=1e-6)
        assert slope(tau - 0.1, tau) < 0 < slope(tau + 0.1, tau)


def test_advantage_weights_grow_exponentially_up_to_their_limit_and_are_held_fixed():
    log_prob, advantage = jnp.full(3, -2.0), jnp.array([0.0, 1.0, 1e4])
    loss = losses.advantage_weighted(log_prob, advantage, 3.0)
    np.testing.assert_allclose(loss, 2 * np.array([1.0, np.exp(3.0), 100.0]), rtol=1e-5)
    for_log_prob, for_advantage = jax.grad(
        lambda *args: losses.advantage_weighted(*args, 3.0).sum(), argnums=(0, 1)
    )(log_prob, advantage)
    np.testing.assert_allclose(for_log_prob, [-1.0, -np.exp(3.0), -100.0], rtol=1e-5)
    np.testing.assert_array_equal(for_advantage, 0.0)
    np.testing.assert_allclose(losses.advantage_weighted(log_prob, advantage, 0.0), 2.0)
