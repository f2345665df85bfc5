"""Pen and door: the reward is the environment's own word on success, which the state tells."""

import subprocess
import sys
import types

import gymnasium
import numpy as np
import pytest
from ml_collections import config_dict

from experiments.runtime import config_files, evaluation
from mtm_jax.data import info as data_info
from mtm_jax.envs import completion, make, registry, rollout
from mtm_jax.errors import UserError


@pytest.fixture(scope="module", params=["pen", "door"])
def task(request):
    """The name of a task and its environment."""
    env = make.make(registry.ENVS[request.param].builtin_id).unwrapped
    yield request.param, env
    env.close()


def put_near_the_goal(name, env, rng):
    """Set a state of which about half the draws are done, whatever each part of the goal says."""
    state = env.hand.get_env_state()
    if name == "door":
        state["qpos"][28] = rng.uniform(1.3, 1.4)
    else:
        state["qpos"][24:27] += rng.uniform(-0.06, 0.06, 3)
        # The pen lies along x, and the target would stand along z.
        turned = np.array([0.7, 0.0, 0.7, 0.0]) + rng.uniform(-0.2, 0.2, 4)
        state["desired_orien"] = turned / np.linalg.norm(turned)
    env.hand.set_env_state(state)


@pytest.fixture(scope="module")
def steps(task):
    """Observations, rewards and successes of single steps near the goal and of random actions."""
    name, env = task
    rng, rows = np.random.default_rng(0), []
    for start in range(200):
        env.reset(seed=start)
        if start > 5:
            put_near_the_goal(name, env, rng)
        for _ in range(1 if start > 5 else 10):
            obs, reward, terminated, truncated, info = env.step(
                rng.uniform(-1, 1, env.action_space.shape)
            )
            assert not terminated and not truncated
            rows.append((obs, reward, info["success"]))
    return tuple(np.array(column) for column in zip(*rows, strict=True))


def test_the_state_tells_what_the_environment_says(task, steps):
    observations, _, successes = steps
    assert 0.2 < successes.mean() < 0.8
    for dtype in (np.float64, np.float32):
        told = completion.completed(task[0], observations.astype(dtype))
        assert told.dtype == bool
        np.testing.assert_array_equal(told, successes)


def test_both_halves_of_the_pens_goal_are_needed(task, steps):
    if task[0] == "door":
        return
    observations, _, successes = steps
    near = np.linalg.norm(observations[:, 39:42], axis=1) < 0.075
    assert (near & ~successes).sum() > 10 and (~near).sum() > 10


def test_the_reward_is_success(steps):
    _, rewards, successes = steps
    assert rewards.dtype == float
    np.testing.assert_array_equal(rewards, successes.astype(float))


def test_rounding_never_closes_an_open_door():
    observations = np.zeros((4, 39), np.float32)
    limit = np.float32(1.35)  # a little more than 1.35
    observations[:, 28] = [limit, np.nextafter(limit, np.float32(0)), 1.5, np.nan]
    assert completion.completed("door", observations).tolist() == [True, False, True, False]


def test_unknown_tasks_and_foreign_observations_are_refused():
    with pytest.raises(UserError, match="'hopper' is done; choose one of pen, door"):
        completion.completed("hopper", np.zeros((2, 11)))
    with pytest.raises(UserError, match=r"of pen have shape \[2, 39\], expected \[n, 45\]"):
        completion.completed("pen", np.zeros((2, 39)))


def test_collectors_get_past_the_wrappers_but_not_past_the_reward(task):
    name, env = task
    assert isinstance(env, gymnasium.Env) and env.unwrapped is env
    assert env.observation_space.shape == (registry.ENVS[name].obs_dim,)
    assert env.action_space.shape == (registry.ENVS[name].action_dim,)
    rng = np.random.default_rng(3)
    env.np_random = rng
    assert env.np_random is rng and env.np_random_seed == -1
    first, second = env.reset()[0], env.reset()[0]
    env.np_random = np.random.default_rng(3)
    np.testing.assert_array_equal(env.reset()[0], first)
    assert (first != second).any()


def test_resets_are_those_of_the_dense_task(task):
    name, env = task
    dense = make.make(registry.ENVS[f"{name}_dense"].builtin_id)
    np.testing.assert_array_equal(env.reset(seed=7)[0], dense.reset(seed=7)[0])
    assert env.np_random_seed == 7
    dense.close()


def test_nothing_is_printed_to_users(root):
    code = "from mtm_jax.envs import make; make.make('mtm_jax/AdroitDoorCompletion-v1').reset()"
    ran = subprocess.run(
        [sys.executable, "-W", "default", "-c", code], cwd=root, capture_output=True, check=True
    )
    assert (ran.stdout, ran.stderr) == (b"", b"")


# A policy that holds the middle of every actuator; its memory is how many environments there are.
STILL = types.SimpleNamespace(
    start=len,
    decide=lambda count: np.zeros((count, registry.ENVS["door"].action_dim)),
    observe=lambda count, *step: count,
)


def test_episodes_say_whether_the_task_was_done():
    door = registry.ENVS["door"].builtin_id
    episodes = rollout.rollout(door, STILL, 2, 0, max_episode_steps=5)
    assert episodes.lengths.tolist() == [5, 5]
    assert episodes.returns.tolist() == [0.0, 0.0]
    assert episodes.successes.tolist() == episodes.final_successes.tolist() == [False, False]


def make_agent(env_id):
    """As much of an agent as an evaluation looks at."""
    info = data_info.of_env(registry.ENVS["door"], env_id, "door-human", "a test")
    return types.SimpleNamespace(
        info=info,
        returns=types.SimpleNamespace(mean=3.0, best=5.0),
        step=30,
        history=0,
        weights="",
    )


SETTINGS = config_dict.ConfigDict(
    {"methods": ("bc",), "episodes": 3, "seed": 0, "target_fraction": 1.0}
)
RUN = {"seed": 0, "preset": "small", "variant": "mtm", "masks": {"patterns": {}}}


def test_success_rates_are_in_the_results_and_on_the_screen(monkeypatch, capsys):
    done = np.array([True, True, False]), np.array([True, False, False])
    episodes = rollout.Episodes(np.array([5.0, 1.0, 0.0]), np.array([5, 5, 5]), *done)
    monkeypatch.setattr(rollout, "rollout", lambda *a, **k: episodes)
    agent = make_agent(registry.ENVS["door"].builtin_id)
    row = evaluation.evaluate_actor(agent, "bc", None, SETTINGS, "evaluate", RUN)
    assert row["metrics"]["success_rate"] == pytest.approx(2 / 3)
    assert row["metrics"]["final_success_rate"] == pytest.approx(1 / 3)
    assert row["normalized_scores"] == [5.0, 1.0, 0.0]
    evaluation.say_successes(row)
    assert "67% of the episodes" in capsys.readouterr().out


def test_without_a_simulator_there_is_no_evaluation(tmp_path):
    with pytest.raises(UserError, match="trained on door-human, .*no simulator"):
        evaluation.evaluate_runs([tmp_path], [make_agent("")], SETTINGS, "evaluate")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("preset", ["small", "base", "paper"])
def test_training_on_the_hand_hides_more(preset):
    fractions = {
        name: config_files.load(f"configs/pretrain.py:{name},preset={preset}").masks.fractions
        for name in ("pen-expert", "door_dense-human", "hopper-medium", "custom")
    }
    others = fractions["hopper-medium"]
    assert min(others) == 0.5
    assert fractions["pen-expert"] == fractions["door_dense-human"] == (0.4, *others)
    assert fractions["custom"] == others
