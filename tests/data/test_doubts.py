"""What looks wrong in data that can be read is said, or refused where it would be trained on."""

import dataclasses

import numpy as np
import pytest

from mtm_jax import tokens
from mtm_jax.data import doubts, own, validation
from mtm_jax.errors import UserError
from mtm_jax.types import DataInfo, Trajectories

HOPPER = DataInfo("hopper-x", "a test", "Hopper-v5", 20, (-1.0,) * 3, (1.0,) * 3)
DOOR = DataInfo("door-x", "a test", "mtm_jax/AdroitDoorCompletion-v1", 20, (-1.0,) * 3, (1.0,) * 3)
CUSTOM = DataInfo("custom", "a test", "", 20, (-1.0,) * 3, (1.0,) * 3)


def make(lengths=(20, 12, 20), terminal=(), info=HOPPER, **changes):
    """Random episodes, of which some end by themselves."""
    rng, rows = np.random.default_rng(0), sum(lengths)
    fields = {
        "observations": rng.normal(size=(rows, 11)),
        "actions": rng.uniform(-1, 1, (rows, 3)),
        "rewards": rng.normal(size=rows),
        "terminals": np.isin(np.arange(rows), (np.cumsum(lengths) - 1)[list(terminal)]),
        "lengths": np.array(lengths),
        "final_observations": rng.normal(size=(len(lengths), 11)),
    }
    return Trajectories(**(fields | changes), info=info)


@pytest.mark.parametrize(
    ("terminal", "info", "count"),
    [
        ([0, 2], HOPPER, 2),
        ([0, 1, 2], HOPPER, 2),  # fallen in between, and yet every limit is terminal
        ([0], HOPPER, 0),
        ([1], HOPPER, 0),
        ([], HOPPER, 0),
        ([0, 2], CUSTOM, 2),
    ],
)
def test_terminals_on_the_time_limit_are_said(terminal, info, count, caplog):
    validation.check(make(terminal=terminal, info=info))
    said = f"all {count} episodes that reach the time limit of 20 steps are marked as terminal"
    assert (said in caplog.text) == (count > 0)
    assert ("time limit" in caplog.text) == (count > 0)


def test_the_longest_of_a_custom_environment_may_be_terminal():
    assert doubts.terminals_at_limit(np.arange(32) == 19, np.array([20, 12]), CUSTOM) == 0
    assert doubts.terminals_at_limit(np.arange(32) == 19, np.array([20, 12]), HOPPER) == 1


@pytest.mark.parametrize(
    ("actions", "whole"),
    [
        (np.array([[0], [1], [1]], np.int64), True),
        (np.array([[0.0], [2.0], [1.0]]), True),
        (np.array([[True], [False], [True]]).astype(np.float32), True),
        (np.array([[0.0], [0.5], [1.0]]), False),
        (np.zeros((3, 2)), False),
    ],
)
def test_actions_of_whole_numbers_are_noticed(actions, whole):
    assert doubts.whole_numbers(actions) == whole


def test_rewards_that_look_constant_are_said(caplog):
    assert doubts.CONSTANT == tokens.MIN_SCALE
    varying = np.linspace(0.0, 1.0, 52)
    for rewards in (varying, 1e-6 * varying, 1e6 + varying, np.full(52, 0.1), np.zeros(52)):
        validation.check(make(rewards=rewards))
    assert caplog.text == ""
    validation.check(make(rewards=5.0 + 1e-5 * varying))
    assert "rewards lie between 5 and 5.0000" in caplog.text and "look constant" in caplog.text


def test_discrete_actions_are_said_or_refused(caplog):
    arrays = {"observations": np.random.default_rng(0).normal(size=(40, 4)), "lengths": [20, 20]}
    own.from_arrays(arrays | {"actions": np.arange(40)[:, None] % 2})
    assert "every action is a whole number, as those of a discrete environment" in caplog.text
    with pytest.raises(UserError, match="they are whole numbers, and discrete actions are not mod"):
        own.from_arrays(arrays | {"actions": np.arange(40)[:, None] % 4})


def test_a_reset_in_place_of_the_last_observation_is_taken_for_unknown(caplog):
    data = make()
    finals = data.final_observations.copy()
    finals[0] = data.observations[20]
    checked = validation.check(dataclasses.replace(data, final_observations=finals))
    assert np.isnan(checked.final_observations).all(axis=1).tolist() == [True, False, False]
    np.testing.assert_array_equal(checked.final_observations[1:], np.float32(finals[1:]))
    assert not np.isnan(finals).any()  # the given array is as it was
    assert "in 1 of 3 episodes the observation after the last step" in caplog.text
    caplog.clear()
    validation.check(make())
    assert caplog.text == ""


def test_next_observations_of_environments_that_reset_themselves_are_noticed(caplog):
    data = make()
    following = np.vstack([data.observations[1:], data.final_observations[-1:]])
    arrays = {"observations": data.observations, "next_observations": following}
    arrays |= {"actions": data.actions, "lengths": np.array([20, 12, 20])}
    read = own.from_arrays(arrays, env="hopper")
    assert np.isnan(read.final_observations).all(axis=1).tolist() == [True, True, False]
    assert "in 2 of 3 episodes" in caplog.text


def outside(count, size=2.0, rows=100, dims=3):
    """Actions of which the first `count` rows lie beyond the bounds in one dimension."""
    actions = np.random.default_rng(0).uniform(-1, 1, (rows, dims))
    actions[:count, 1] = size
    return make((50, 50), actions=actions, info=dataclasses.replace(HOPPER, max_episode_steps=50))


@pytest.mark.parametrize(("count", "clipped"), [(15, True), (16, False), (100, False)])
def test_more_than_a_few_percent_beyond_the_bounds_are_refused(count, clipped, caplog):
    """15 of 300 values are 5%."""
    if clipped:
        assert validation.check(outside(count)).actions.max() <= 1.0
        assert f"clipped {count} of 300 action values" in caplog.text
        return
    with pytest.raises(UserError) as refused:
        validation.check(outside(count))
    text = str(refused.value)
    assert f"{count / 300:.0%} of the action values lie beyond the bounds of Hopper-v5" in text
    assert "those of dimension 1 range from" in text and "to 2, and its bounds are -1 and 1" in text
    assert "--config.data.clip_actions=True" in text
    allowed = validation.check(outside(count), clip_actions=True)
    assert allowed.actions[:count, 1].tolist() == [1.0] * count


def test_one_dimension_alone_can_be_refused():
    info = DataInfo("custom", "a test", "", 50, (-1.0,) * 30, (1.0,) * 30)
    data = dataclasses.replace(outside(100, rows=100, dims=30), info=info)
    with pytest.raises(UserError, match="3% of the action values .* those of dimension 1 range"):
        validation.check(data)


def test_a_few_values_and_a_rounding_error_are_clipped():
    assert validation.check(make((8, 4), actions=np.eye(12, 3) * 1.5)).actions.max() == 1.0
    assert validation.check(outside(100, size=1.0005)).actions.max() == 1.0


def test_the_hand_clips_its_actions_itself():
    rows = {"observations": np.zeros((100, 39)), "final_observations": np.full((2, 39), np.nan)}
    info = dataclasses.replace(DOOR, action_low=(-1.0,) * 28, action_high=(1.0,) * 28)
    actions = np.zeros((100, 28))
    actions[:, :6] = 1.3
    door = make((50, 50), actions=actions, info=info, **rows)
    assert validation.check(door).actions.max() == 1.0
    actions[:, :8] = 1.3
    with pytest.raises(UserError, match="29% of the action values lie beyond"):
        validation.check(door)


@pytest.mark.parametrize("size", [1e-26, 1e-45, 1e-300])
def test_rewards_that_float32_cannot_tell_from_zero_are_refused(size):
    with pytest.raises(UserError, match=f"largest reward is {size:.3g}, too small .* of 20 steps"):
        validation.check(make(rewards=np.full(52, -size)))
    assert validation.check(make(rewards=np.full(52, 3e-25))).rewards.min() > 0
    assert not validation.check(make(rewards=np.zeros(52))).rewards.any()
