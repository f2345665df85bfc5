"""Episodes stepped together equal episodes stepped one by one."""

from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest

from mtm_jax.envs import rollout
from mtm_jax.errors import UserError

ENV, EPISODES, SEED = "Hopper-v5", 4, 30
WEIGHTS = np.random.default_rng(2).normal(size=(11, 3)).astype(np.float32)


def choose(obs, last_action, last_reward):
    """A fixed policy with a memory: the last action and its reward count too."""
    return np.tanh(obs @ WEIGHTS + 0.5 * last_action + 0.1 * last_reward)


def make_actor(seen=None):
    def start(obs):
        return 0, choose(obs, 0.0, 0.0)

    def observe(memory, actions, rewards, obs):
        if seen is not None:
            seen.append((memory[0], obs.dtype, rewards.dtype, obs.shape))
        return memory[0] + 1, choose(obs, actions, rewards[:, None])

    return SimpleNamespace(start=start, decide=lambda memory: memory[1], observe=observe)


def run_alone(seed):
    env = gymnasium.make(ENV)
    obs, _ = env.reset(seed=seed)
    action = choose(obs.astype(np.float32), 0.0, 0.0)
    total, length = 0.0, 0
    while True:
        obs, reward, terminated, truncated, _ = env.step(action)
        total, length = total + reward, length + 1
        if terminated or truncated:
            return total, length
        action = choose(obs.astype(np.float32), action, np.float32(reward))


def test_returns_and_lengths_equal_single_episodes():
    episodes = rollout.rollout(ENV, make_actor(), EPISODES, SEED)
    alone = [run_alone(SEED + e) for e in range(EPISODES)]
    np.testing.assert_array_equal(episodes.lengths, [length for _, length in alone])
    np.testing.assert_allclose(episodes.returns, [total for total, _ in alone], rtol=1e-4)
    assert np.ptp(episodes.lengths) > 10  # some went on long after others had ended


def test_copies_play_the_same_episodes():
    twice = rollout.rollout(ENV, make_actor(), 2, SEED, copies=2)
    once = rollout.rollout(ENV, make_actor(), 2, SEED)
    for part in rollout.split(twice, 2):
        np.testing.assert_array_equal(part.returns, once.returns)
        np.testing.assert_array_equal(part.lengths, once.lengths)
        assert part.successes is None


def test_an_evaluation_repeats_itself():
    first, again = (rollout.rollout(ENV, make_actor(), 2, SEED) for _ in range(2))
    np.testing.assert_array_equal(first.returns, again.returns)
    other = rollout.rollout(ENV, make_actor(), 2, SEED + 2)
    assert (first.returns != other.returns).any()


def test_actors_carry_their_memory_and_see_single_precision():
    seen = []
    episodes = rollout.rollout(ENV, make_actor(seen), 2, SEED)
    assert [memory for memory, *_ in seen] == list(range(episodes.lengths.max() - 1))
    assert {(o, r, s) for _, o, r, s in seen} == {(np.dtype("f4"), np.dtype("f4"), (2, 11))}


def test_progress_counts_steps_and_running_episodes():
    calls = []
    episodes = rollout.rollout(
        ENV, make_actor(), EPISODES, SEED, on_step=lambda step, alive: calls.append((step, alive))
    )
    steps, alive = zip(*calls, strict=True)
    assert list(steps) == list(range(1, episodes.lengths.max() + 1))
    assert list(alive) == [int((episodes.lengths > step).sum()) for step in steps]


def test_a_time_limit_ends_an_episode():
    still = SimpleNamespace(
        start=len, decide=lambda count: np.zeros((count, 6)), observe=lambda count, *step: count
    )
    assert rollout.rollout("HalfCheetah-v5", still, 1, 0).lengths == [1000]


def test_another_time_limit_can_be_set():
    episodes = rollout.rollout(ENV, make_actor(), 2, SEED, max_episode_steps=3)
    assert episodes.lengths.tolist() == [3, 3]


class Scripted(gymnasium.Env):
    """Says what a script says of its task, step by step; after the first episode always True."""

    observation_space = action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))

    def __init__(self, script):
        self.script, self.episode = script, 0

    def reset(self, *, seed=None, options=None):
        self.episode, self.step_number = self.episode + 1, 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        said = self.script[self.step_number] if self.episode == 1 else True
        self.step_number += 1
        info = {} if said is None else {"success": np.bool_(said)}
        end = self.step_number == len(self.script)
        return np.zeros(1, np.float32), 0.0, end, False, info


def run_scripts(monkeypatch, *scripts):
    envs = gymnasium.vector.SyncVectorEnv([lambda s=s: Scripted(s) for s in scripts])
    monkeypatch.setattr(rollout.make, "make_vec", lambda *args, **kwargs: envs)
    still = SimpleNamespace(
        start=lambda obs: obs, decide=np.asarray, observe=lambda memory, actions, rewards, obs: obs
    )
    return rollout.rollout("scripted", still, len(scripts), 0)


def test_successes_are_those_of_the_counted_steps(monkeypatch):
    episodes = run_scripts(
        monkeypatch,
        [False, False],  # afterwards it succeeds uncounted
        [False, True, False, False],
        [True, False, True],
        [False] * 7,
    )
    assert episodes.lengths.tolist() == [2, 4, 3, 7]
    assert episodes.successes.tolist() == [False, True, True, False]
    assert episodes.final_successes.tolist() == [False, False, True, False]
    assert episodes.successes.dtype == episodes.final_successes.dtype == bool


def test_successes_are_unknown_where_the_environment_says_nothing(monkeypatch):
    silent = rollout.rollout(ENV, make_actor(), 1, SEED, max_episode_steps=2)
    for episodes in (silent, run_scripts(monkeypatch, [None, None])):
        assert episodes.successes is None and episodes.final_successes is None


def test_an_unknown_environment_is_refused():
    with pytest.raises(UserError, match="'Ant-v5' is not allowed; choose one of Hopper-v5"):
        rollout.rollout("Ant-v5", make_actor(), 1, 0)
