"""Environments that are stepped together do what each does by itself, to the last bit."""

import gymnasium
import numpy as np
import pytest

from mtm_jax.envs import simulations

IDS = ("Hopper-v5", "Walker2d-v5", "HalfCheetah-v5")


def make(env_id, count=3, **kwargs):
    return [gymnasium.make(env_id, **kwargs).unwrapped for _ in range(count)]


def reset(envs, seed):
    return [env.reset(seed=seed + k)[0] for k, env in enumerate(envs)]


@pytest.mark.parametrize("env_id", IDS)
def test_steps_are_those_of_the_environment(env_id):
    together, alone = make(env_id), make(env_id)
    envs = simulations.simulate(together)
    assert isinstance(envs, simulations.Locomotion)
    rng = np.random.default_rng(0)
    endings = 0
    for start in range(4):
        reset(together, start), reset(alone, start)
        for _ in range(80):
            actions = rng.uniform(-1.0, 1.0, (3, alone[0].action_space.shape[0]))
            actions = actions.astype(np.float32)
            obs, rewards, terminals = envs.step([0, 1, 2], actions)
            for k, env in enumerate(alone):
                expected, reward, terminal, _, _ = env.step(actions[k])
                np.testing.assert_array_equal(obs[k], expected)
                assert rewards[k] == reward
                assert terminals[k] == terminal
                endings += terminal
    assert (endings > 0) == (env_id != "HalfCheetah-v5")


def test_episodes_go_on_where_the_environment_lets_them():
    together, alone = (make("Hopper-v5", 1, terminate_when_unhealthy=False) for _ in range(2))
    reset(together, 0), reset(alone, 0)
    envs, action = simulations.simulate(together), np.ones((1, 3), np.float32)
    for _ in range(120):
        obs, rewards, terminals = envs.step([0], action)
        expected, reward, terminal, _, _ = alone[0].step(action[0])
        np.testing.assert_array_equal(obs[0], expected)
        assert (rewards[0], bool(terminals[0])) == (reward, terminal) == (reward, False)
    assert obs[0, 0] < 0.7


def test_unhealthy_velocities_end_an_episode_and_are_clipped():
    together, alone = make("Hopper-v5", 1), make("Hopper-v5", 1)
    for env in (*together, *alone):
        env.reset(seed=0)
        env.set_state(env.init_qpos, np.array([0.0, 0.0, 0.0, 0.0, 0.0, 250.0]))
    action = np.zeros((1, 3), np.float32)
    obs, rewards, terminals = simulations.simulate(together).step([0], action)
    expected, reward, terminal, _, _ = alone[0].step(action[0])
    np.testing.assert_array_equal(obs[0], expected)
    assert (rewards[0], bool(terminals[0])) == (reward, terminal)
    assert np.abs(obs[0, 5:]).max() == 10.0


def test_only_those_that_are_named_are_stepped():
    envs = make("Hopper-v5")
    reset(envs, 0)
    before = [env.data.qpos.copy() for env in envs]
    obs, _, _ = simulations.simulate(envs).step([2, 0], np.zeros((2, 3), np.float32))
    np.testing.assert_array_equal(envs[1].data.qpos, before[1])
    np.testing.assert_array_equal(obs[0, :5], envs[2].data.qpos[1:])
    np.testing.assert_array_equal(obs[1, :5], envs[0].data.qpos[1:])


def test_other_environments_are_stepped_one_by_one():
    envs = [gymnasium.make("Pendulum-v1").unwrapped for _ in range(2)]
    first = reset(envs, 0)
    found = simulations.simulate(envs)
    assert isinstance(found, simulations.OneByOne)
    obs, rewards, terminals = found.step([0, 1], np.zeros((2, 1), np.float32))
    assert obs.shape == (2, 3)
    assert rewards.shape == terminals.shape == (2,)
    assert not np.allclose(obs, first)
