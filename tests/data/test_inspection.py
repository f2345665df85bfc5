"""What an inspection says of data whose content is known."""

import dataclasses

import numpy as np
import pytest

from mtm_jax.data import inspection
from mtm_jax.envs import registry
from mtm_jax.types import DataInfo, Trajectories

LENGTHS = (20, 10, 15)
LIMIT = 20


def make(**changes):
    """Three episodes of Hopper: at the time limit, terminal, and cut."""
    rng, rows = np.random.default_rng(0), sum(LENGTHS)
    terminals = np.zeros(rows, bool)
    terminals[29] = True
    data = Trajectories(
        observations=rng.normal(size=(rows, 11)).astype(np.float32),
        actions=rng.uniform(-0.9, 0.9, (rows, 3)).astype(np.float32),
        rewards=np.arange(rows, dtype=np.float32),
        terminals=terminals,
        lengths=np.array(LENGTHS),
        final_observations=np.zeros((3, 11), np.float32),
        info=DataInfo("hopper-x", "a test", "Hopper-v5", LIMIT, (-1.0,) * 3, (1.0,) * 3),
    )
    return dataclasses.replace(data, **changes)


def test_counts_and_endings():
    found = inspection.inspect(make())
    assert (found.steps, found.episodes) == (45, 3)
    assert (found.timed_out, found.terminal, found.cut) == (1, 1, 1)
    assert (found.lengths.low, found.lengths.median, found.lengths.high) == (10, 15, 20)
    assert found.lengths.mean == 15
    assert found.arrays["observations"] == ((45, 11), "float32")
    assert found.arrays["terminals"] == ((45,), "bool")
    assert found.train is None and "train" not in found.arrays


def test_a_terminal_step_at_the_time_limit_is_terminal():
    terminals = make().terminals.copy()
    terminals[19] = True
    found = inspection.inspect(make(terminals=terminals))
    assert (found.timed_out, found.terminal, found.cut) == (0, 2, 1)


def test_returns_and_scores_are_those_of_the_episodes():
    data = make()
    returns = np.array([r.sum() for r in np.split(data.rewards, [20, 30])])
    found = inspection.inspect(data)
    assert (found.returns.low, found.returns.high) == (returns.min(), returns.max())
    assert found.returns.quarter == pytest.approx(np.quantile(returns, 0.25))
    scores = registry.normalized_score(registry.ENVS["hopper"], returns)
    assert found.scores.mean == pytest.approx(scores.mean())
    nowhere = dataclasses.replace(data.info, env_id="", name="lift-human")
    assert inspection.inspect(make(info=nowhere)).scores is None


def test_bounds_ranges_and_constant_dimensions():
    data = make()
    data.actions[:9, 0] = 1.0
    data.actions[9, 1] = -1.0
    data.observations[:, (2, 7)] = 5.0
    found = inspection.inspect(data)
    assert found.at_bounds == pytest.approx(10 / (45 * 3))
    assert found.actions == (-1.0, 1.0)
    assert found.observations == (data.observations.min(), data.observations.max())
    assert found.constant_observations == (2, 7)
    assert found.constant_actions == ()


def test_what_episodes_lack_does_not_count():
    has = np.array([True, False, True])
    data = make(available=dict.fromkeys(("actions", "rewards", "returns"), has))
    data.actions[20:30], data.rewards[20:30] = 1.0, -1e6
    found = inspection.inspect(data)
    assert found.modalities["actions"] == pytest.approx(2 / 3)
    assert found.modalities["states"] == 1
    assert found.at_bounds == 0 and found.actions[1] < 0.9
    assert found.rewards.low == 0 and found.returns.low == np.arange(20).sum()
    np.testing.assert_array_equal(
        inspection.returns(data), [np.arange(20).sum(), np.arange(30, 45).sum()]
    )


def test_data_without_rewards_have_no_returns():
    lacking = dict.fromkeys(("rewards", "returns"), np.zeros(3, bool))
    found = inspection.inspect(make(available=lacking, rewards=np.zeros(45, np.float32)))
    assert found.returns is found.scores is found.rewards is None
    assert inspection.warnings(found) == []


def test_the_split_of_the_data_is_counted():
    assert inspection.inspect(make(train=np.array([True, True, False]))).train == 2


def repeated():
    data = make(lengths=np.array([15, 15, 15]), terminals=np.zeros(45, bool))
    data.observations[30:], data.actions[30:] = data.observations[:15], data.actions[:15]
    return data


def test_episodes_that_differ_in_their_actions_alone_are_not_equal():
    data = repeated()
    data.actions[44] = -data.actions[44]
    assert inspection.inspect(data).duplicates == 0
    assert inspection.inspect(repeated()).duplicates == 1


def with_columns(name, columns):
    data = make()
    getattr(data, name)[:, columns] = 0.5
    return data


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (repeated(), "1 episode equal to an earlier one"),
        (with_columns("observations", [2, 7]), "observation dimensions 2, 7 never change"),
        (with_columns("actions", [1]), "action dimension 1 never changes"),
        (make(rewards=np.full(45, 0.5, np.float32)), "every reward is 0.5"),
        (make(lengths=np.array([7, 8, 30])), "1 episode of fewer than 8 steps"),
        (
            make(final_observations=np.full((3, 11), np.nan, np.float32)),
            "the observation after the last step is unknown in 3 episodes of 3",
        ),
    ],
)
def test_what_deserves_a_second_look_is_said(data, sentence):
    assert inspection.warnings(inspection.inspect(data)) == [sentence]


def test_healthy_data_give_no_warning():
    assert inspection.warnings(inspection.inspect(make())) == []


def test_one_step_is_inspected():
    data = make()
    one = {k: getattr(data, k)[:1] for k in ("observations", "actions", "rewards", "terminals")}
    found = inspection.inspect(
        make(**one, lengths=np.array([1]), final_observations=np.zeros((1, 11), np.float32))
    )
    assert inspection.warnings(found) == ["1 episode of fewer than 8 steps"]
