"""The walker's tasks: dm_control's own rewards and observations, also for stored states."""

import os
import subprocess
import sys

import numpy as np
import pytest

from mtm_jax.envs import make, registry, walker_tasks
from mtm_jax.errors import UserError

STEPS = 30


def env_of(task):
    return make.make(f"mtm_jax/Walker{task.title()}-v0").unwrapped


@pytest.fixture(scope="module", params=walker_tasks.TASKS)
def recording(request):
    """Random actions in one task: states, observations and rewards; row 0 is the reset."""
    env, rng = env_of(request.param), np.random.default_rng(0)
    states, observations, rewards = [], [], [np.nan]
    for start in range(2):
        observations.append(env.reset(seed=start)[0])
        states.append(env.physics_state())
        for _ in range(STEPS):
            obs, reward, terminated, truncated, _ = env.step(rng.uniform(-1, 1, 6))
            assert not terminated and not truncated
            observations.append(obs)
            states.append(env.physics_state())
            rewards.append(reward)
        rewards += [np.nan] * (start == 0)
    return request.param, np.stack(states), np.stack(observations), np.array(rewards)


def test_relabelled_rewards_are_those_seen_while_stepping(recording):
    task, states, _, seen = recording
    found = walker_tasks.rewards(task, states)
    assert found.dtype == np.float32
    stepped = np.isfinite(seen)
    assert stepped.sum() == 2 * STEPS and np.ptp(seen[stepped]) > 0.01
    np.testing.assert_allclose(found[stepped], seen[stepped], atol=1e-7)


def test_rewards_do_not_depend_on_the_states_before(recording):
    task, states, _, _ = recording
    one_by_one = [walker_tasks.rewards(task, states[k : k + 1])[0] for k in (3, 40)]
    np.testing.assert_array_equal(walker_tasks.rewards(task, states)[[3, 40]], one_by_one)


def test_relabelling_for_all_tasks_at_once_changes_nothing(recording):
    task, states, _, _ = recording
    every = walker_tasks.all_rewards(states)
    assert tuple(every) == ("stand", "walk", "run")
    np.testing.assert_array_equal(every[task], walker_tasks.rewards(task, states))


def test_the_tasks_differ_in_the_speed_they_ask_for():
    standing = np.zeros((3, 18))
    standing[:, 10] = 0.0, 2.0, 20.0
    every = walker_tasks.all_rewards(standing)
    np.testing.assert_allclose(every["stand"], 1.0)
    np.testing.assert_allclose(every["walk"], [1 / 6, 1, 1], atol=1e-6)
    assert 1 / 6 == pytest.approx(every["run"][0]) and every["run"][2] == 1.0
    assert 1 / 6 <= every["run"][1] < 1.0


def test_observations_are_orientations_height_and_velocities(recording):
    _, states, observations, _ = recording
    assert observations.shape[1] == 24
    np.testing.assert_allclose(walker_tasks.observations_of(states), observations, atol=1e-5)
    np.testing.assert_array_equal(observations[:, 15:], states[:, 9:])
    np.testing.assert_allclose(observations[:, 0], np.cos(states[:, 2]), atol=1e-9)
    np.testing.assert_allclose(np.hypot(observations[:, 0:14:2], observations[:, 1:14:2]), 1.0)
    standing = walker_tasks.observations_of(np.zeros((1, 18)))[0]
    assert standing[14] == pytest.approx(1.3)


def test_the_registered_environment_fits_the_registry():
    for task in walker_tasks.TASKS:
        spec = registry.ENVS[f"walker_{task}"]
        env = make.make(spec.builtin_id)
        assert env.observation_space.shape == (spec.obs_dim,)
        assert env.action_space.shape == (spec.action_dim,)
        assert (env.action_space.low == -1).all() and (env.action_space.high == 1).all()
        assert env.spec.max_episode_steps == spec.max_episode_steps
        assert env.unwrapped.unwrapped is env.unwrapped


def test_episodes_are_cut_at_the_time_limit_and_nowhere_else():
    env = make.make("mtm_jax/WalkerRun-v0", max_episode_steps=3)
    env.reset(seed=0)
    ends = [env.step(np.zeros(6, np.float32))[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]


def test_the_bare_environment_goes_on_beyond_the_time_limit():
    env = env_of("stand")
    env.reset(seed=0)
    for _ in range(walker_tasks.MAX_EPISODE_STEPS):
        before = env.step(np.zeros(6))[0]
    after, _, _, truncated, _ = env.step(np.zeros(6))
    assert not truncated
    np.testing.assert_allclose(after[:15], before[:15], atol=0.05)  # it lies on the floor


def test_resets_depend_on_the_generator_alone():
    one, other = env_of("stand"), env_of("run")
    one.reset()
    one.np_random, other.np_random = np.random.default_rng(7), np.random.default_rng(7)
    first = [one.reset()[0] for _ in range(2)]
    np.testing.assert_array_equal(first, [other.reset()[0] for _ in range(2)])
    assert np.abs(first[0] - first[1]).max() > 0.1
    np.testing.assert_array_equal(one.reset(seed=3)[0], other.reset(seed=3)[0])


@pytest.mark.parametrize(
    ("task", "physics", "words"),
    [
        ("jump", np.zeros((1, 18)), "unknown task 'jump'.*stand, walk, run"),
        ("run", np.zeros((1, 24)), r"shape \(1, 24\).*\[n, 18\]"),
        ("run", np.zeros(18), r"shape \(18,\)"),
        ("run", np.full((2, 18), [[0.0], [np.inf]]), "1 of 2 .*first in row 1"),
    ],
)
def test_states_that_are_none_are_refused(task, physics, words):
    with pytest.raises(UserError, match=words):
        walker_tasks.rewards(task, physics)


def run_without_a_window(program, root, **backend):
    names = ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY")
    env = {k: v for k, v in os.environ.items() if k not in names}
    return subprocess.run(
        [sys.executable, "-W", "default", "-c", program],
        cwd=root,
        env=env | backend,
        capture_output=True,
        text=True,
        check=True,
    )


def test_importing_is_silent_and_leaves_the_choice_of_a_backend_alone(root):
    program = """
import os
from mtm_jax.envs import walker_tasks
print(os.environ.get("MUJOCO_GL"), "jax" in __import__("sys").modules)
env = walker_tasks.Walker("run")
env.reset(seed=0)
try:
    env.render()
except walker_tasks.UserError as error:
    print(error)
"""
    done = run_without_a_window(program, root)
    first, second = done.stdout.splitlines()
    assert first == "None False"
    assert "cannot be drawn" in second and "set MUJOCO_GL=egl" in second
    assert done.stderr == ""
