"""Returns of trajectories and of candidates."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mtm_jax import returns

STEPS = hnp.arrays(np.float32, 5, elements=st.floats(-10, 10, width=32))
UNIT = st.floats(0.0, 1.0, width=32)
HORIZON = 5
utility = jax.jit(returns.lambda_utility)


def n_step_returns(rewards, values, discount):
    """G_n of M3PC equation 3, term by term."""
    powers = discount ** np.arange(HORIZON)
    return [powers[:n] @ rewards[:n] + powers[n] * values[n] for n in range(HORIZON)]


@hypothesis.given(rewards=STEPS)
def test_average_times_steps_left_obeys_the_one_step_identity(rewards):
    limit = 9
    average = np.asarray(returns.average_return_to_go(rewards, limit), np.float64)
    to_go = average * returns.steps_left(np.arange(5), limit)
    np.testing.assert_allclose(to_go[:-1], rewards[:-1] + to_go[1:], atol=1e-4)
    np.testing.assert_allclose(to_go[-1], rewards[-1], atol=1e-4)


def test_returns_to_go_include_the_current_reward():
    np.testing.assert_allclose(returns.returns_to_go(jnp.array([1.0, 2.0, 4.0])), [7.0, 6.0, 4.0])


def test_a_constant_reward_to_the_limit_has_a_constant_average():
    average = returns.average_return_to_go(jnp.full(1000, 3.0), 1000)
    np.testing.assert_allclose(average, 3.0, rtol=1e-5)


def test_an_early_end_lowers_the_average_as_if_nothing_more_were_earned():
    early = returns.average_return_to_go(jnp.full(4, 3.0), 10)
    padded = returns.average_return_to_go(jnp.array([3.0] * 4 + [0.0] * 6), 10)
    np.testing.assert_allclose(early, padded[:4], rtol=1e-6)


@hypothesis.given(rewards=STEPS, values=STEPS, discount=UNIT, lambda_=UNIT)
def test_utility_equals_equation_3_written_out(rewards, values, discount, lambda_):
    g = n_step_returns(rewards.astype(np.float64), values.astype(np.float64), discount)
    weights = [(1 - lambda_) * lambda_**n for n in range(HORIZON - 1)] + [lambda_ ** (HORIZON - 1)]
    found = utility(rewards, values, discount, lambda_)
    np.testing.assert_allclose(found, np.dot(weights, g), rtol=1e-5, atol=1e-4)


@hypothesis.given(rewards=STEPS, last=st.floats(-10, 10, width=32), lambda_=UNIT)
def test_utility_of_consistent_values_is_the_first_value_for_every_lambda(rewards, last, lambda_):
    values = [last]
    for reward in rewards[-2::-1]:
        values.insert(0, reward + 0.9 * values[0])
    found = utility(rewards, np.asarray(values, np.float32), 0.9, lambda_)
    np.testing.assert_allclose(found, values[0], rtol=1e-5, atol=1e-4)


def test_utility_with_lambda_zero_is_the_first_value():
    assert utility(jnp.ones(5), jnp.arange(2.0, 7.0), 0.9, 0.0) == 2.0


def test_utility_with_lambda_one_is_the_longest_return():
    rewards, values = np.arange(5.0), np.arange(5.0) ** 2
    longest = n_step_returns(rewards, values, 0.9)[-1]
    np.testing.assert_allclose(utility(rewards, values, 0.9, 1.0), longest, rtol=1e-6)


@pytest.mark.parametrize("lambda_", [0.0, 0.6, 1.0])
def test_utility_of_one_step_is_its_value(lambda_):
    assert returns.lambda_utility(jnp.array([9.0]), jnp.array([4.0]), 0.9, lambda_) == 4.0


def test_utility_does_not_depend_on_the_last_reward():
    slope = jax.grad(returns.lambda_utility)(jnp.ones(5), jnp.ones(5), 0.9, 0.6)
    assert slope[-1] == 0.0
    assert (slope[:-1] > 0).all()
