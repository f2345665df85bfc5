"""A recording holds what the planner did, what its model imagined and what the simulator says."""

import types

import gymnasium
import numpy as np
import pytest
from matplotlib import collections, image

from mtm_jax import tokens
from mtm_jax.agents import acting, imagination, planner, pretrained
from mtm_jax.errors import UserError
from mtm_jax.planning import forward, worlds
from mtm_jax.plots import rollouts

HORIZON, SEED = 4, 3
IMAGINED = 0.5  # what the fake model adds to the present state with every step


def open_loop(t, scale):
    """Actions by the step alone, so that every plan can be carried out as it was made."""
    return scale * np.sin(0.3 * t + np.arange(3.0)).astype(np.float32)


class FakeActor:
    """Plans `open_loop`, in candidate 1 of 3; its memory is the step and the observation."""

    def __init__(self, scale=0.3, env_id="Hopper-v5"):
        self.scale = scale
        self.agent = types.SimpleNamespace(
            info=types.SimpleNamespace(env_id=env_id),
            stats={"states": tokens.identity_stats(11)},
            to_environment=np.asarray,
        )

    def start(self, obs):
        return 0, np.asarray(obs)

    def observe(self, memory, actions, rewards, obs):
        assert (actions.shape, rewards.dtype, obs.dtype) == ((1, 3), np.float32, np.float32)
        return memory[0] + 1, obs

    def decide(self, memory):
        return open_loop(memory[0], self.scale)[None]

    def explain(self, memory):
        (t, obs), n = memory, np.arange(HORIZON + 2)  # longer, as at the start of an episode
        actions = np.stack([open_loop(t + i, self.scale) for i in n])
        states = obs + IMAGINED * n[:, None]
        weights = np.array([0.1, 0.6, 0.3])

        def candidates(x):
            return np.stack([0.0 * x, x, 2.0 * x])[None]

        rollout = worlds.Rollout(*map(candidates, (states, 0.1 * n, 0.0 * n)))
        parts = candidates(actions), rollout, candidates(10.0 + n), weights, weights[None], n
        return forward.Plan(actions[None, 0], *parts)


@pytest.fixture(scope="module")
def recording():
    return imagination.record(FakeActor(), steps=12, seed=SEED, every=3, horizon=HORIZON)


@pytest.fixture(scope="module")
def fallen():
    """Full strength fells the hopper within a few steps."""
    return imagination.record(FakeActor(1.0), steps=100, seed=SEED, every=1, horizon=HORIZON)


def test_the_episode_is_the_environments_own(recording):
    env = gymnasium.make("Hopper-v5")
    obs, _ = env.reset(seed=SEED)
    for t in range(12):
        np.testing.assert_array_equal(recording.observations[t], obs)
        np.testing.assert_array_equal(recording.qpos[t], env.unwrapped.data.qpos)
        obs, reward, *_ = env.step(open_loop(t, 0.3))
        assert recording.rewards[t] == reward
    assert len(recording.rewards) == 12


def test_plans_carried_out_to_the_letter_are_the_episode(recording):
    assert recording.starts.tolist() == [0, 3, 6, 9]
    for k, start in enumerate(recording.starts[:3]):
        steps = slice(start, start + HORIZON)
        np.testing.assert_array_equal(recording.real_states[k], recording.observations[steps])
        np.testing.assert_array_equal(recording.real_rewards[k], recording.rewards[steps])
        np.testing.assert_array_equal(recording.real_qpos[k], recording.qpos[steps])
    assert (recording.lengths == HORIZON).all()


def test_the_candidate_of_the_largest_weight_is_kept_over_the_horizon(recording):
    n, obs = np.arange(HORIZON), np.float32(recording.observations[recording.starts])
    expected = obs[:, None] + IMAGINED * n[:, None]
    np.testing.assert_allclose(recording.imagined_states, expected, rtol=1e-6)
    np.testing.assert_allclose(recording.imagined_rewards, np.tile(0.1 * n, (4, 1)))
    np.testing.assert_allclose(recording.imagined_values, np.tile(10.0 + n, (4, 1)))


def test_a_plan_that_fells_the_robot_is_cut(fallen):
    total = len(fallen.rewards)
    assert total < 100
    np.testing.assert_array_equal(fallen.lengths, np.minimum(total - fallen.starts, HORIZON))
    assert (fallen.real_rewards[-1, 1:] == 0).all()
    lying = fallen.real_states[-1, 1:]
    assert (lying == lying[0]).all() and (lying[0] != fallen.observations[-1]).any()
    assert np.isfinite(fallen.real_states).all()


def test_errors_are_those_of_steps_that_were_reached(recording, fallen):
    scaled = recording._replace(scale=np.full(11, 2.0))
    errors = imagination.errors(scaled)
    moved = recording.real_states - recording.real_states[:, :1]
    squares = np.square(moved / 2.0).mean((0, 2))
    np.testing.assert_allclose(errors.unchanged, np.sqrt(squares))
    off = (moved - IMAGINED * np.arange(HORIZON)[:, None]) / 2.0
    np.testing.assert_allclose(errors.imagined, np.sqrt(np.square(off).mean((0, 2))), atol=1e-6)
    last = fallen._replace(**{f: getattr(fallen, f)[-2:] for f in PLAN_FIELDS})
    assert len(imagination.errors(last).imagined) == 2
    wild = last.real_states.copy()
    wild[-1, 1:] = 1e9  # after the fall
    lengths = imagination.errors(last._replace(real_states=wild))
    np.testing.assert_array_equal(lengths.unchanged, imagination.errors(last).unchanged)


PLAN_FIELDS = ("starts", "lengths", "imagined_states", "imagined_rewards", "imagined_values") + (
    "real_states",
    "real_rewards",
    "real_qpos",
)


@pytest.mark.slow
def test_an_actor_of_a_trained_run_is_recorded(tiny_run):
    agent = pretrained.load(tiny_run)
    plan = planner.plan_config("m3pc_m", candidates=5, history=2, horizon=3)
    actor = acting.make_actor(agent, "m3pc_m", plan=plan, seed=SEED)
    found = imagination.record(actor, steps=4, seed=SEED, every=1, horizon=3)
    assert found.imagined_states.shape == found.real_states.shape == (4, 3, 11)
    np.testing.assert_allclose(found.imagined_states[:, 0], found.observations, rtol=1e-6)
    np.testing.assert_array_equal(found.real_states[:, 0], found.observations)
    np.testing.assert_allclose(found.scale, agent.stats["states"].std)
    plan = actor.explain(actor.start(np.float32(found.observations[:1])))
    best = int(np.argmax(plan.weights[0]))
    np.testing.assert_allclose(found.imagined_rewards[0], plan.rollout.rewards[0, best, :3])
    env = gymnasium.make("Hopper-v5")
    env.reset(seed=SEED)
    reward = env.step(agent.to_environment(plan.candidates[0, best, 0]))[1]
    assert found.real_rewards[0, 0] == pytest.approx(reward, rel=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0, "every": 1}, "0 steps with a plan every 1"),
        ({"steps": 5, "every": 0}, "5 steps with a plan every 0"),
    ],
)
def test_numbers_out_of_range_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        imagination.record(FakeActor(), seed=0, horizon=HORIZON, **settings)


def test_an_environment_without_a_simulator_state_in_view_is_refused():
    with pytest.raises(UserError, match="door_dense cannot be shown, only those of hopper"):
        imagination.record(
            FakeActor(env_id="AdroitHandDoor-v1"), steps=5, seed=0, every=1, horizon=HORIZON
        )


def segments(axis):
    lines = [c for c in axis.collections if isinstance(c, collections.LineCollection)]
    return [line.get_segments() for line in lines]


def test_the_figure_shows_plans_where_they_belong(recording, drawn):
    rollouts.draw(recording, "a.png")
    panels = {axis.get_title(loc="left"): axis for axis in drawn[0].axes}
    names = ["height (m)", "torso angle (rad)", "forward velocity (m/s)", "reward"]
    assert list(panels)[:4] == names and len(panels) == 6
    for axis, d in zip(map(panels.get, names[:3]), (0, 1, 5), strict=True):
        np.testing.assert_array_equal(axis.lines[0].get_ydata(), recording.observations[:, d])
        imagined, real = segments(axis)
        starts = [line[0, 0] for line in imagined]
        assert starts == [0, 6]  # those from 3 and 9 would lie over them
        np.testing.assert_allclose(imagined[1][:, 1], recording.imagined_states[2, :, d])
        np.testing.assert_allclose(real[1][:, 1], recording.real_states[2, :, d])
    np.testing.assert_array_equal(panels["reward"].lines[0].get_ydata(), recording.rewards)


def test_the_figure_cuts_plans_at_a_fall(fallen, drawn):
    last = fallen._replace(**{f: getattr(fallen, f)[-2:-1] for f in PLAN_FIELDS})
    rollouts.draw(last, "a.png")
    imagined, real = segments(drawn[0].axes[0])
    assert (len(imagined[0]), len(real[0])) == (HORIZON, 2)


def test_a_long_episode_is_also_shown_at_close_range(recording, drawn):
    long = recording._replace(
        observations=np.tile(recording.observations, (20, 1)),
        rewards=np.tile(recording.rewards, 20),
    )
    rollouts.draw(long, "a.png")
    assert len(drawn[0].axes) == 10
    whole, near = (axis.get_xlim() for axis in drawn[0].axes[:2])
    assert whole == (-0.5, 239.5) and near == (100, 140)


def test_the_figure_is_a_png_file(recording, tmp_path):
    path = rollouts.draw(recording, tmp_path / "new" / "imagination.png")
    assert image.imread(path).std() > 0.05
    with pytest.raises(UserError, match=r"does not end in \.png"):
        rollouts.draw(recording, tmp_path / "a.jpg")
