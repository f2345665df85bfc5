"""Goals as data: what they are made of, what is refused, and files of them."""

import numpy as np
import pytest

from mtm_jax.data import goal_files
from mtm_jax.envs.goals import waypoints
from mtm_jax.errors import UserError

STATES = np.arange(24.0).reshape(8, 3)
NAN = np.where(np.arange(24).reshape(8, 3) == 7, np.nan, STATES)


def test_a_goal_for_every_step_from_the_first_on():
    goals = waypoints.make(STATES)
    np.testing.assert_array_equal(goals.steps, np.arange(1, 9))
    assert goals.complete and goals.spacing == 1 and goals.states.dtype == np.float32


def test_thinned_goals_keep_their_steps_and_the_last_one():
    goals = waypoints.make(STATES).every(3)
    np.testing.assert_array_equal(goals.steps, [3, 6, 8])
    np.testing.assert_array_equal(goals.states, STATES[[2, 5, 7]])
    assert goals.spacing == 3


def test_an_episode_starts_with_no_goal():
    goals = waypoints.of_episode(STATES, spacing=2)
    np.testing.assert_array_equal(goals.steps, [2, 4, 6, 7])
    np.testing.assert_array_equal(goals.states, STATES[[2, 4, 6, 7]])


def test_free_dimensions_are_not_read():
    goals = waypoints.make(NAN, given=np.array([True, False, True]))
    assert np.isfinite(goals.states).all() and not goals.complete
    assert (goals.given == [True, False, True]).all()
    assert (waypoints.make(STATES).only(1).given == [False, True, False]).all()


def test_goals_are_connected_by_straight_lines_and_held():
    motion = waypoints.make(STATES[:2], [2, 4]).motion(6)
    np.testing.assert_allclose(motion[:, 0], [0.0, 0.0, 0.0, 1.5, 3.0, 3.0, 3.0])


def test_a_file_gives_back_what_was_saved(tmp_path):
    goals = waypoints.make(STATES, 4 * np.arange(1, 9), STATES % 2 == 0, env="hopper")
    goal_files.save(goals, tmp_path / "goals.npz")
    again = goal_files.load(tmp_path / "goals.npz", env="hopper")
    for field in ("states", "steps", "given", "env"):
        np.testing.assert_array_equal(getattr(again, field), getattr(goals, field))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: waypoints.make(np.zeros((0, 3))), r"shape \(0, 3\); give at least one"),
        (lambda: waypoints.make(np.zeros((2, 2, 3))), r"shape \(2, 2, 3\)"),
        (lambda: waypoints.make(NAN), "goal 2 is nan in dimension 1; say with `given`"),
        (lambda: waypoints.make(["left"]), "states of goals have type <U4"),
        (lambda: waypoints.make([[1.0], [1.0, 2.0]]), "cannot be read as an array"),
        (lambda: waypoints.make(STATES, [1, 2]), "2 steps for 8 goals"),
        (lambda: waypoints.make(STATES[:2], [0, 1]), r"steps of goals are \[0, 1\]"),
        (lambda: waypoints.make(STATES[:2], [3, 3]), "ascending whole numbers"),
        (lambda: waypoints.make(STATES[:2], [1, 2.5]), "ascending whole numbers"),
        (lambda: waypoints.make(STATES, given=np.ones(4)), r"`given` has shape \(4,\)"),
        (lambda: waypoints.make(STATES, given=np.zeros(3)), "goal 0 gives no dimension"),
        (lambda: waypoints.make(STATES).only(3), r"dimensions \[3\] were named"),
        (lambda: waypoints.make(STATES).every(0), "every 0 steps"),
        (lambda: waypoints.of_episode(STATES[:1]), "an episode of 1 observations has no goal"),
    ],
)
def test_what_is_no_goal_is_refused(make, says):
    with pytest.raises(UserError, match=says):
        make()


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda p: p.write_bytes(b""), "is empty; give an npz file"),
        (lambda p: p.write_bytes(b"text"), "cannot be read as npz"),
        (lambda p: np.savez(p, goals=STATES), "has no goals: it holds goals"),
        (lambda p: np.savez(p, states=NAN), "goals.npz: goal 2 is nan in dimension 1"),
        (lambda p: None, "goals.npz"),
    ],
)
def test_a_file_without_goals_is_refused(tmp_path, write, says):
    write(tmp_path / "goals.npz")
    with pytest.raises(UserError, match=says):
        goal_files.load(tmp_path / "goals.npz")
