"""Utilities are those of equation 3 and of the released planner; the choice follows them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtm_jax import returns
from mtm_jax.config import PlanConfig
from mtm_jax.planning import options, scoring

CASES = range(0, 32, 2)
LIMIT = 1000


@pytest.fixture(scope="module")
def golden(root):
    with np.load(root / "tests/golden/tdlambda.npz") as file:
        return dict(file)


def case(golden, kind, i):
    part = f"{kind}/{i}/"
    found = {k.removeprefix(part): v for k, v in golden.items() if k.startswith(part)}
    return found, *found["h_lambda_gamma_xi"][1:].tolist()


def released(rewards, values, discount, lambda_):
    """Utilities as planners compute them, [N, h] each -> [N]."""
    config = PlanConfig(discount=discount, lambda_=lambda_, convention="released")
    steps = options.make_steps(config, LIMIT, None, explore=False)
    return steps.score_fn(rewards, values, rewards.shape[1])


@pytest.mark.parametrize("i", CASES)
def test_utilities_of_the_released_critic_planner_are_met(golden, i):
    found, lambda_, discount, xi = case(golden, "critic", i)
    utilities = released(found["rewards"], found["q"], discount, lambda_)
    np.testing.assert_allclose(utilities, found["U"], rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(scoring.weights(utilities, xi), found["p"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("i", CASES)
def test_utilities_of_the_released_return_planner_are_met(golden, i):
    found, lambda_, discount, xi = case(golden, "rtg", i)
    values = scoring.released_return_values(found["returns"], 7, LIMIT)
    utilities = released(found["rewards"], values, discount, lambda_)
    np.testing.assert_allclose(utilities, found["U"], rtol=2e-5)
    # The softmax is of numbers near 2000: its rounding is theirs, so ours is taken of their U.
    weights = scoring.weights(jnp.asarray(found["U"]), xi)
    np.testing.assert_allclose(weights, found["p"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("length", [1, 2, 4, 6])
@pytest.mark.parametrize("lambda_", [0.0, 0.6, 1.0])
def test_a_shorter_horizon_reads_its_own_steps_only(length, lambda_):
    rng = np.random.default_rng(length)
    rewards, values = rng.normal(size=(2, 6)).astype(np.float32)
    expected = returns.lambda_utility(rewards[:length], values[:length], 0.9, lambda_)
    rewards[length - 1 :], values[length:] = np.nan, np.nan
    found = jax.jit(returns.lambda_utility)(rewards, values, 0.9, lambda_, length)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_return_values_count_the_steps_that_the_limit_leaves():
    tokens = jnp.full(4, 2.0)
    np.testing.assert_allclose(scoring.return_values(tokens, 10, 100), [180, 178, 176, 174])
    np.testing.assert_allclose(scoring.return_values(tokens, 98, 100), [4, 2, 0, 0])


@pytest.mark.parametrize("constant", [-3e3, 0.5, 1e3])
def test_a_constant_added_to_all_utilities_changes_no_choice(constant):
    rng = np.random.default_rng(0)
    utilities = rng.integers(0, 40, 50).astype(np.float32) / 8  # sums of these are exact
    for xi in (0.1, 1.0, 10.0):
        np.testing.assert_array_equal(
            scoring.weights(utilities, xi), scoring.weights(utilities + constant, xi)
        )
    np.testing.assert_allclose(
        scoring.standardise(utilities + constant), scoring.standardise(utilities), atol=1e-3
    )


def test_standardised_utilities_do_not_know_their_scale():
    utilities = jnp.asarray(np.random.default_rng(0).normal(size=50), jnp.float32)
    found = scoring.standardise(utilities)
    np.testing.assert_allclose([found.mean(), found.std()], [0.0, 1.0], atol=1e-6)
    np.testing.assert_allclose(scoring.standardise(1e3 * utilities), found, rtol=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.1, 1234.5])
def test_equal_utilities_stay_equal(value):
    assert scoring.standardise(jnp.full(7, value)).tolist() == [0.0] * 7
    single = scoring.standardise(jnp.full(1, value))
    assert scoring.weights(single, 1.0).tolist() == [1.0]


def test_the_expectation_weighs_and_the_draw_picks():
    weights, actions = jnp.array([0.75, 0.25, 0.0]), jnp.array([[0.0], [1.0], [9.0]])
    np.testing.assert_allclose(scoring.expectation(weights, actions), [0.25])
    keys = jax.random.split(jax.random.key(0), 400)
    drawn = jax.vmap(lambda k: scoring.draw(k, weights, actions))(keys)
    assert set(drawn[:, 0].tolist()) == {0.0, 1.0}
    assert 0.15 < float(drawn.mean()) < 0.35
