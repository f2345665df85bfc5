"""Recorded Adroit data get the papers' reward: 1 for each step that ends at the goal."""

import logging

import h5py
import numpy as np
import pytest

from mtm_jax.data import info as data_info
from mtm_jax.data import validation
from mtm_jax.data.d4rl import reader as d4rl
from mtm_jax.data.exorl import relabel
from mtm_jax.data.minari import reader as minari
from mtm_jax.envs import registry
from mtm_jax.errors import UserError
from mtm_jax.types import Trajectories

HINGE = 28
OPEN, SHUT = 1.4, 0.2
# Three episodes: opened and kept open; opened and shut again; open only after the last step.
ANGLES = [[SHUT, SHUT, OPEN], [SHUT, OPEN, SHUT, SHUT], [SHUT, SHUT]]
FINALS = [OPEN, SHUT, OPEN]
REWARDS = [[0, 1, 1], [1, 0, 0, 0], [0, 1]]


def states(angles):
    observations = np.zeros((len(angles), registry.ENVS["door"].obs_dim), np.float32)
    observations[:, HINGE] = angles
    observations[:, 0] = np.arange(len(angles))  # no state is like another
    return observations


def make_door(finals=FINALS, **changes):
    lengths = [len(angles) for angles in ANGLES]
    final_observations = states(finals)
    final_observations[np.isnan(finals)] = np.nan
    arrays = {
        "observations": states(np.concatenate(ANGLES)),
        "actions": np.zeros((sum(lengths), registry.ENVS["door"].action_dim), np.float32),
        "rewards": np.full(sum(lengths), 7.5, np.float32),
        "terminals": np.zeros(sum(lengths), bool),
        "lengths": np.array(lengths),
        "final_observations": final_observations,
        "info": data_info.of_env(registry.ENVS["door"], "AdroitHandDoor-v1", "door-x", "a test"),
    }
    return validation.check(Trajectories(**(arrays | changes)))


def test_a_reward_is_for_the_state_that_a_step_leads_to():
    found = relabel.task_completion(make_door(), "door")
    assert found.rewards.dtype == np.float32
    np.testing.assert_array_equal(found.rewards, np.concatenate(REWARDS))
    np.testing.assert_array_equal(found.episode_returns, [2.0, 1.0, 1.0])


def test_the_given_trajectories_keep_their_rewards():
    given = make_door()
    before = {name: np.copy(getattr(given, name)) for name in ("rewards", "final_observations")}
    found = relabel.task_completion(given, "door")
    for name, array in before.items():
        np.testing.assert_array_equal(getattr(given, name), array)
    assert found.observations is given.observations and found.info is given.info


def test_an_unknown_end_is_judged_by_the_last_known_state(caplog):
    with caplog.at_level(logging.INFO, "mtm_jax"):
        found = relabel.task_completion(make_door([np.nan, SHUT, np.nan]), "door")
    np.testing.assert_array_equal(found.rewards, [0, 1, 1, 1, 0, 0, 0, 0, 0])
    assert "2 of 3 episodes do not say what follows" in caplog.text
    assert "after 3 of 9 steps, in 2 of 3 episodes" in caplog.text


def test_known_ends_are_not_mentioned(caplog):
    with caplog.at_level(logging.INFO, "mtm_jax"):
        relabel.task_completion(make_door(), "door")
    assert "do not say" not in caplog.text


def test_rewards_are_known_where_states_are():
    nowhere, some = np.zeros(3, bool), np.array([True, False, True])
    without = make_door(available={"rewards": nowhere, "actions": some})
    assert set(relabel.task_completion(without, "door").available) == {"actions"}
    partly = make_door(available={"states": some, "returns": nowhere})
    available = relabel.task_completion(partly, "door").available
    for name in ("states", "rewards", "returns"):
        np.testing.assert_array_equal(available[name], some)


def test_only_the_hand_has_such_rewards():
    with pytest.raises(UserError, match="'hopper' is done; choose one of pen, door"):
        relabel.task_completion(make_door(), "hopper")
    with pytest.raises(UserError, match=r"of pen have shape \[9, 39\], expected \[n, 45\]"):
        relabel.task_completion(make_door(), "pen")


def test_files_in_d4rls_layout_and_minaris_give_the_same_rewards(tmp_path):
    given = make_door()
    with h5py.File(tmp_path / "door-human.hdf5", "w") as file:
        for name in ("observations", "actions", "rewards", "terminals"):
            file[name] = getattr(given, name)
        file["timeouts"] = np.isin(np.arange(9), np.cumsum(given.lengths) - 1)
        following = np.roll(given.observations, -1, axis=0)
        following[np.cumsum(given.lengths) - 1] = given.final_observations
        file["next_observations"] = following
    minari.write(given, "test/door-v0", root=tmp_path)
    read = d4rl.read(tmp_path / "door-human.hdf5"), minari.read("test/door-v0", "door", tmp_path)
    for trajectories in read:
        found = relabel.task_completion(trajectories, "door")
        np.testing.assert_array_equal(found.rewards, np.concatenate(REWARDS))
