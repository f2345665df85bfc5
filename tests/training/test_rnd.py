"""Random network distillation rewards SAC for what its predictor has not learnt yet."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtm_jax.config import RNDConfig, SACConfig
from mtm_jax.models import critics
from mtm_jax.training import program, rnd, sac

HIDDEN = (16, 16)
SAC_CONFIG = SACConfig(hidden=HIDDEN, learning_rate=3e-3, batch_size=64, polyak=0.05)
CONFIG = RNDConfig(hidden=HIDDEN, features=8, learning_rate=1e-3)
LENGTH = 200
reward_step = jax.jit(rnd.reward_step, static_argnums=1)


@pytest.fixture(scope="module")
def compiled():
    return program.make_program(rnd.make_training(SAC_CONFIG, CONFIG, obs_dim=2, action_dim=1))


@pytest.fixture(scope="module")
def algorithm():
    return rnd.make_rnd(CONFIG)


def replay_of(actions, next_obs, rewards=0.0):
    """One state, whose transitions all end the episode."""
    count = len(actions)
    batch = sac.Transitions(
        obs=jnp.zeros((count, 2)),
        actions=jnp.asarray(actions, jnp.float32)[:, None],
        rewards=jnp.full(count, rewards),
        next_obs=jnp.asarray(next_obs, jnp.float32),
        terminals=jnp.ones(count),
    )
    return sac.insert(sac.empty_replay(count, 2, 1), batch)


@pytest.fixture(scope="module")
def rarely_elsewhere():
    """Next states at the origin, but for the few transitions with an action above 0.8."""
    rng = np.random.default_rng(0)
    actions = np.append(rng.uniform(-1, 0.6, 480), rng.uniform(0.8, 1, 32))
    next_obs = rng.normal(0, 0.1, (512, 2))
    next_obs[480:] = rng.normal(0, 3.0, (32, 2))
    return actions, next_obs


@pytest.fixture(scope="module")
def trained(compiled, rarely_elsewhere):
    return compiled.run(compiled.init(jax.random.key(0)), replay_of(*rarely_elsewhere), LENGTH)


def fresh(compiled):
    return compiled.init(jax.random.key(0))


def assert_trees_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def differ(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return any((a != b).any() for a, b in pairs)


@pytest.mark.slow
def test_familiar_states_lose_their_errors_and_others_keep_them(compiled, algorithm):
    line = np.linspace(-2, 2, 512)
    replay = replay_of(np.zeros(512), np.stack([line, line], axis=1))
    state = fresh(compiled)
    for _ in range(2):
        state, _ = compiled.run(state, replay, LENGTH)
    points = np.array([[-1.0, -1.0], [0.8, 0.8], [-1.0, 1.0], [0.8, -0.8]])
    before = algorithm.errors(fresh(compiled).predictor, state, points)
    left = algorithm.errors(state.predictor, state, points) / before
    assert left[:2].max() < 0.2 * left[2:].min()


def test_the_critic_values_actions_that_lead_to_unfamiliar_states(trained):
    actions = jnp.asarray([[-0.5], [0.0], [0.9]])
    critic = critics.Q(HIDDEN, members=2)
    q = critic.apply({"params": trained[0].sac.critic}, jnp.zeros((3, 2)), actions).min(0)
    assert q[2] > q[:2].max() + 0.5


def test_the_predictor_learns_and_the_target_stays(compiled, trained):
    state, metrics = trained
    assert_trees_equal(state.target, fresh(compiled).target)
    assert differ(state.predictor, fresh(compiled).predictor)
    assert int(state.step) == LENGTH
    assert state.actor is state.sac.actor and state.actor_average is state.sac.actor_average
    assert {"rnd/error", "rnd/reward", "rnd/reward_max", "critic/loss"} < set(metrics)


def test_the_rewards_of_the_environment_do_not_matter(compiled, rarely_elsewhere, trained):
    paid = replay_of(*rarely_elsewhere, rewards=100.0)
    state, _ = compiled.run(fresh(compiled), paid, LENGTH)
    assert_trees_equal(state.sac.critic, trained[0].sac.critic)


def test_a_reward_is_the_error_before_the_step_over_its_running_deviation(compiled, algorithm):
    rng = np.random.default_rng(0)
    batches = [
        replay_of(np.zeros(64), rng.normal(5.0, scale, (64, 2)), 7.0).ring for scale in (1, 9)
    ]
    state, seen = fresh(compiled), []
    for batch in batches:
        before = state
        state, rewarded, metrics = reward_step(state, algorithm, batch)
        expected = algorithm.errors(
            before.predictor, before.replace(obs_moments=state.obs_moments), batch.next_obs
        )
        seen.append(np.asarray(expected))
        np.testing.assert_allclose(rewarded.rewards, expected / np.std(seen), rtol=1e-4)
        np.testing.assert_array_equal(rewarded.next_obs, batch.next_obs)
        assert float(metrics["rnd/error"]) == pytest.approx(float(expected.mean()), rel=1e-5)


def test_errors_do_not_depend_on_the_units_of_the_observations(compiled, algorithm):
    next_obs = np.random.default_rng(0).normal(size=(64, 2))
    found = []
    for unit, zero in ((1.0, 0.0), (100.0, 3.0)):
        batch = replay_of(np.zeros(64), zero + unit * next_obs).ring
        found.append(reward_step(fresh(compiled), algorithm, batch)[1].rewards)
    np.testing.assert_allclose(found[0], found[1], rtol=2e-3)


def test_an_outlier_counts_no_more_than_the_clip(compiled, algorithm):
    state = fresh(compiled)
    state = state.replace(obs_moments=rnd.Moments(jnp.zeros(2), jnp.ones(2), jnp.ones(())))
    far = algorithm.errors(state.predictor, state, jnp.asarray([[5.0, 0.0], [500.0, 0.0]]))
    assert far[0] == far[1] > 0


def test_running_moments_are_those_of_all_batches_and_later_of_recent_ones():
    values = np.random.default_rng(0).normal(3.0, 2.0, (10, 8, 2)).astype(np.float32)
    moments = rnd.zero_moments((2,))
    for batch in values:
        moments = rnd.update_moments(moments, batch, rate=0.05)
    np.testing.assert_allclose(moments.mean, values.mean((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(moments.std, values.std((0, 1)), rtol=1e-4)
    for _ in range(200):
        moments = rnd.update_moments(moments, -values[0], rate=0.05)
    np.testing.assert_allclose(moments.mean, -values[0].mean(0), rtol=1e-3)
    np.testing.assert_allclose(moments.std, values[0].std(0), rtol=1e-3)
