"""The tanh-squashed normal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mtm_jax import distributions

# Narrow, wide, far from the centre.
CASES = [(0.0, -1.0), (0.5, 0.0), (-1.5, -0.7), (0.2, 0.9), (2.0, -3.0)]


def make(loc, log_std):
    return distributions.TanhNormal(jnp.array([loc]), jnp.array([log_std]))


def density(dist, actions):
    return np.exp(np.asarray(distributions.log_prob(dist, actions[:, None])[:, 0], np.float64))


@pytest.mark.parametrize(("loc", "log_std"), CASES)
def test_density_integrates_to_the_normal_probability_of_each_interval(loc, log_std):
    edges = np.linspace(-3.0, 3.0, 7)
    expected = np.diff(stats.norm.cdf(edges, loc, np.exp(log_std)))
    for low, high, probability in zip(edges[:-1], edges[1:], expected, strict=True):
        actions = np.linspace(np.tanh(low), np.tanh(high), 4001)
        found = np.trapezoid(density(make(loc, log_std), actions), actions)
        np.testing.assert_allclose(found, probability, atol=1e-4)


@pytest.mark.parametrize(("loc", "log_std"), [*CASES, (1.0, 2.0), (-4.0, 2.0), (3.0, -5.0)])
def test_the_mean_is_the_expectation_of_the_action(loc, log_std):
    expected = stats.norm.expect(np.tanh, loc=loc, scale=np.exp(log_std))
    np.testing.assert_allclose(distributions.mean(make(loc, log_std)), [expected], atol=3e-5)


@pytest.mark.parametrize(("loc", "log_std"), CASES[:3])
def test_density_integrates_to_one(loc, log_std):
    pre_tanh = np.linspace(-6.0, 6.0, 20_001)
    actions = np.tanh(pre_tanh)
    total = np.trapezoid(density(make(loc, log_std), actions) * (1 - actions**2), pre_tanh)
    np.testing.assert_allclose(total, 1.0, atol=1e-3)


@pytest.mark.parametrize(("loc", "log_std"), CASES)
def test_log_prob_of_samples_equals_the_one_returned_with_them(loc, log_std):
    dist = make(loc, log_std)
    actions, log_prob = distributions.sample_and_log_prob(jax.random.key(0), dist, (200,))
    assert actions.shape == log_prob.shape == (200, 1)
    inside = np.abs(actions) < 0.999  # nearer to the bounds the action forgets digits
    again = distributions.log_prob(dist, actions)
    np.testing.assert_allclose(again[inside], log_prob[inside], rtol=1e-3, atol=1e-3)


def test_samples_have_the_location_and_scale_before_the_tanh():
    dist = distributions.TanhNormal(jnp.array([0.5, -1.0]), jnp.log(jnp.array([0.3, 0.1])))
    pre_tanh = np.arctanh(distributions.sample(jax.random.key(1), dist, (20_000,)))
    np.testing.assert_allclose(pre_tanh.mean(0), dist.loc, atol=4 * 0.3 / 20_000**0.5)
    np.testing.assert_allclose(pre_tanh.std(0), np.exp(dist.log_std), rtol=0.03)


def test_samples_carry_gradients_to_location_and_scale():
    slope = jax.grad(lambda d: distributions.sample(jax.random.key(0), d).sum())(make(0.1, -1.0))
    assert slope.loc[0] > 0.0
    assert slope.log_std[0] != 0.0


def test_mode_is_the_tanh_of_the_location_and_the_limit_of_narrow_samples():
    dist = make(0.7, -10.0)
    np.testing.assert_allclose(distributions.mode(dist), np.tanh([0.7]), rtol=1e-6)
    sample = distributions.sample(jax.random.key(0), dist)
    np.testing.assert_allclose(sample, distributions.mode(dist), atol=1e-3)


def test_squash_maps_everything_into_the_bounds_in_order():
    raw = jnp.array([-jnp.inf, -1.0, 0.0, 1.0, jnp.inf])
    squashed = distributions.squash_log_std(raw)
    assert (jnp.diff(squashed) > 0).all()
    np.testing.assert_allclose(squashed[jnp.array([0, 2, 4])], [-5.0, -1.5, 2.0])


@pytest.mark.parametrize(("loc", "log_std"), CASES)
def test_entropy_estimate_equals_the_integral(loc, log_std):
    pre_tanh = np.linspace(-15.0, 15.0, 20_001)
    normal = stats.norm(loc, np.exp(log_std))
    log_det = np.log(4.0) - 2 * np.logaddexp(pre_tanh, -pre_tanh)
    integrand = normal.pdf(pre_tanh) * (normal.logpdf(pre_tanh) - log_det)
    quantiles = stats.norm.ppf((np.arange(10_000) + 0.5) / 10_000)  # evenly spread draws
    found = distributions.entropy(make(loc, log_std), jnp.array(quantiles)[:, None])
    assert found.shape == (1,)
    np.testing.assert_allclose(found, -np.trapezoid(integrand, pre_tanh), atol=2e-3)


@pytest.mark.parametrize("log_std", [-4.0, -2.0, -1.0])
def test_more_entropy_means_a_wider_policy(log_std):
    noise = jax.random.normal(jax.random.key(0), (500, 1))
    slope = jax.grad(lambda d: distributions.entropy(d, noise).sum())(make(0.2, log_std))
    assert slope.log_std[0] > 0.3


def test_entropy_pulls_the_location_back_from_the_bounds():
    noise = jax.random.normal(jax.random.key(0), (100, 1))
    slope = jax.grad(lambda d: distributions.entropy(d, noise).sum())(make(3.0, -2.0))
    assert slope.loc[0] < 0.0


@pytest.mark.parametrize("loc", [-80.0, 80.0])
def test_saturated_samples_have_finite_densities_and_gradients(loc):
    def total(dist):
        return distributions.sample_and_log_prob(jax.random.key(0), dist)[1].sum()

    value, slope = jax.value_and_grad(total)(make(loc, 2.0))
    assert np.isfinite(value)
    assert np.isfinite(slope.loc).all()
    assert np.isfinite(slope.log_std).all()
