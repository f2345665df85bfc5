import dataclasses
import logging

import numpy as np
import pytest

from mtm_jax.data import validation
from mtm_jax.errors import UserError
from mtm_jax.types import DataInfo, Trajectories

HOPPER = DataInfo("hopper-medium", "a test", "Hopper-v4", 1000, (-1.0,) * 3, (1.0,) * 3)


def make(episodes=(4, 3, 5), info=HOPPER, **changes):
    """Random episodes, with some fields replaced."""
    rng = np.random.default_rng(0)
    rows = sum(episodes)
    fields = {
        "observations": rng.normal(size=(rows, 11)),
        "actions": rng.uniform(-1, 1, size=(rows, 3)),
        "rewards": rng.normal(size=rows),
        "terminals": np.zeros(rows, bool),
        "lengths": np.array(episodes, int),
        "final_observations": rng.normal(size=(len(episodes), 11)),
    }
    return Trajectories(**(fields | changes), info=info)


def damaged(name, row, value):
    array = getattr(make(), name).copy()
    array[row] = value
    return make(**{name: array})


def test_good_data_become_float32_bool_and_int64():
    checked = validation.check(make(terminals=np.eye(1, 12, 6).astype(np.uint8)[0]))
    for name in ("observations", "actions", "rewards", "final_observations"):
        array = getattr(checked, name)
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, getattr(make(), name), rtol=1e-6)
    assert checked.terminals.dtype == bool
    assert np.flatnonzero(checked.terminals).tolist() == [6]
    assert checked.lengths.dtype == np.int64
    assert checked.starts.tolist() == [0, 4, 7]


@pytest.mark.parametrize(
    ("trajectories", "words"),
    [
        (damaged("observations", (3, 1), np.nan), ["observations holds 1 NaN", "row 3"]),
        (damaged("rewards", 5, -np.inf), ["rewards holds 1 NaN", "row 5"]),
        (damaged("actions", 2, np.nan), ["actions holds 3 NaN", "row 2"]),
        (damaged("observations", (3, 1), 1e300), ["observations", "float32-exceeding", "row 3"]),
        (damaged("final_observations", (1, 0), np.nan), ["final_observations holds 1", "row 1"]),
        (make(observations=np.zeros((12, 12))), ["observations has 12 dim", "Hopper-v4 has 11"]),
        (make(actions=np.zeros((12, 6))), ["actions has 6 dim", "Hopper-v4 has 3"]),
        (make(actions=np.zeros(12)), ["actions has shape [12]", "expected 2"]),
        (make(rewards=np.zeros((12, 2))), ["rewards has shape [12, 2]", "expected 1"]),
        (make(rewards=np.zeros(11)), ["rewards has 11 rows", "observations has 12"]),
        (make(final_observations=np.zeros((2, 11))), ["[2, 11]", "expected [3, 11]"]),
        (make(lengths=np.array([4, 3, 4])), ["sum to 11", "12 rows"]),
        (make(lengths=np.array([4, 8, 0])), ["episode 2 has 0 steps"]),
        (make(lengths=np.array([4.0, 3.0, 5.0])), ["lengths has type float64"]),
        (make(terminals=np.full(12, 2)), ["terminals is 2 at row 0"]),
        (make(terminals=np.arange(12) == 5), ["terminals is set at 1 steps", "row 5"]),
        (make(rewards=np.array([None] * 12)), ["rewards has type object"]),
        (make(observations=np.full((12, 11), "x")), ["observations has type <U1"]),
        (make(episodes=()), ["is empty", "0 steps"]),
        (make(available={"rewards": np.ones(2, bool)}), ["available['rewards']", "[2]", "[3]"]),
        (make(available={"goals": np.ones(3, bool)}), ["available['goals']", "one of states"]),
    ],
)
def test_bad_data_are_refused_in_one_sentence(trajectories, words):
    with pytest.raises(UserError) as error:
        validation.check(trajectories)
    message = str(error.value)
    assert "hopper-medium (a test)" in message
    assert "\n" not in message
    for word in words:
        assert word in message


def test_unknown_final_observations_are_kept_as_nan_rows():
    final = make().final_observations.copy()
    final[1] = np.nan
    checked = validation.check(make(final_observations=final))
    assert np.isnan(checked.final_observations).all(axis=1).tolist() == [False, True, False]


def test_actions_beyond_the_bounds_are_clipped_and_that_is_said(caplog):
    actions = np.zeros((12, 3))
    actions[2] = [-1.5, 0.5, 1.25]
    with caplog.at_level(logging.WARNING, "mtm_jax"):
        checked = validation.check(make(actions=actions))
    assert checked.actions[2].tolist() == [-1.0, 0.5, 1.0]
    assert "clipped 2 of 36 action values" in caplog.text
    assert "0.5 outside" in caplog.text


def test_actions_within_the_bounds_cause_no_warning(caplog):
    actions = np.zeros((12, 3))
    actions[0], actions[1], actions[2] = 1.0, -1.0, 0.5
    with caplog.at_level(logging.WARNING, "mtm_jax"):
        validation.check(make(actions=actions))
    assert caplog.text == ""


def test_bounds_are_those_of_each_dimension():
    info = dataclasses.replace(HOPPER, action_low=(-2.0, -1.0, 0.0), action_high=(2.0, 1.0, 0.5))
    actions = np.tile([1.5, 1.5, 1.5], (12, 1))
    checked = validation.check(make(info=info, actions=actions), clip_actions=True)
    assert checked.actions[0].tolist() == [1.5, 1.0, 0.5]


def test_environments_outside_the_registry_have_any_observation():
    info = DataInfo("other", "a test", "Other-v0", 200, (-1.0,) * 3, (1.0,) * 3)
    assert validation.check(make(info=info)).observations.shape == (12, 11)
