"""Shortest paths over states of the data: on a line, across episodes, and to what is not there."""

import numpy as np
import pytest

from mtm_jax.errors import UserError
from mtm_jax.planning import roadmap

ONES = np.ones(1, np.float32)


def line(*episodes, goal, **settings):
    """A map of episodes on a line; states within 0.1 of `goal` are goals."""
    states = np.concatenate(episodes)[:, None].astype(np.float32)
    last = np.concatenate([np.arange(len(x)) == len(x) - 1 for x in episodes])
    return roadmap.build(
        states, last, np.abs(states[:, 0] - goal) < 0.1, ONES, **{"stride": 2} | settings
    )


def test_on_one_episode_the_path_is_the_recorded_one():
    found = line(np.arange(6.0), goal=4.0, neighbours=1, penalty=100.0)
    for state, subgoal in ((0.2, 1.0), (2.9, 4.0), (4.1, 4.0)):
        assert roadmap.head_for(found, np.float32([state])) == subgoal
    costs = dict(zip(found.states[:, 0].tolist(), found.costs.tolist(), strict=True))
    assert (costs[0.0], costs[3.0], costs[4.0]) == (8.0, 2.0, 0.0)


def test_a_path_changes_the_episode_where_another_is_near():
    """One episode leads from 0 to 5 and the other from 4.9 on; neither has both ends."""
    found = line(np.arange(6.0), 4.9 + np.arange(4.0), goal=7.9, penalty=10.0)
    start = dict(zip(found.states[:, 0].tolist(), found.costs.tolist(), strict=True))[0.0]
    assert start == pytest.approx(2.0 * (5 + 3) + 10.0 * 0.1, abs=1e-3)
    assert roadmap.head_for(found, np.float32([0.0])) == 1.0
    assert roadmap.head_for(found, np.float32([5.0])) == pytest.approx(5.9)


def test_what_leads_to_no_goal_is_left_out():
    found = roadmap.build(
        *(np.float32([[0.0], [1.0]]), np.array([False, True]), np.array([True, False]), ONES),
        neighbours=0,
    )
    np.testing.assert_array_equal(found.states, [[0.0]])


def test_a_goal_that_no_state_is_near_is_refused():
    with pytest.raises(UserError, match="none of these states is a goal"):
        line(np.arange(4.0), goal=9.0)
