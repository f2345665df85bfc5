"""SAC solves problems whose answer is known, and its replay is a ring."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtm_jax import distributions
from mtm_jax.config import SACConfig
from mtm_jax.models import critics
from mtm_jax.training import program, sac

HIDDEN, LENGTH = (32, 32), 200
CONFIG = SACConfig(
    hidden=HIDDEN, learning_rate=3e-3, total_updates=10_000, batch_size=64, polyak=0.05
)


@pytest.fixture(scope="module")
def compiled():
    return program.make_program(sac.make_training(CONFIG, obs_dim=1, action_dim=1))


def replay_of(reward, terminal):
    """One state, actions all over their range."""
    actions = jnp.linspace(-0.99, 0.99, 256)[:, None]
    still = jnp.zeros((256, 1))
    batch = sac.Transitions(still, actions, reward(actions[:, 0]), still, jnp.full(256, terminal))
    return sac.insert(sac.empty_replay(256, 1, 1), batch)


def train(compiled, replay, calls):
    state = compiled.init(jax.random.key(0))
    for _ in range(calls):
        state, metrics = compiled.run(state, replay, LENGTH)
    return state, metrics


def q_values(state, actions):
    critic = critics.Q(HIDDEN, members=2)
    actions = jnp.asarray(actions)[:, None]
    return critic.apply({"params": state.critic}, jnp.zeros_like(actions), actions)


@pytest.mark.slow
def test_the_actor_finds_the_best_action(compiled):
    state, metrics = train(compiled, replay_of(lambda a: -((a - 0.5) ** 2), 1.0), 3)
    dist = critics.TanhNormalActor(1, HIDDEN).apply({"params": state.actor}, jnp.zeros((1, 1)))
    assert float(distributions.mode(dist)[0, 0]) == pytest.approx(0.5, abs=0.15)
    actions = jnp.linspace(-0.9, 0.9, 7)
    expected = np.tile(-((actions - 0.5) ** 2), (2, 1))
    np.testing.assert_allclose(q_values(state, actions), expected, atol=0.15)
    learnt = {"critic/loss", "actor/loss", "actor/entropy", "actor/alpha"}
    assert set(metrics) == learnt | {program.FINITE}


def test_a_terminal_stops_the_bootstrap(compiled):
    ended, _ = train(compiled, replay_of(jnp.ones_like, 1.0), 2)
    np.testing.assert_allclose(q_values(ended, [-0.5, 0.0, 0.5]), 1.0, atol=0.1)
    going_on, _ = train(compiled, replay_of(jnp.ones_like, 0.0), 2)
    assert q_values(going_on, [-0.5, 0.0, 0.5]).min() > 3.0


def test_the_temperature_falls_while_the_entropy_is_above_its_target(compiled):
    state, metrics = train(compiled, replay_of(jnp.ones_like, 1.0), 1)
    assert float(metrics["actor/entropy"]) > -1.0
    assert float(state.log_alpha) < -0.1


def test_a_step_is_an_update_on_a_batch_drawn_from_the_replay(compiled):
    replay = replay_of(lambda a: a, 0.0)
    state = compiled.init(jax.random.key(3))
    keys = jax.random.split(jax.random.fold_in(state.key, 0), 3)
    batch = sac.sample(keys[0], replay, CONFIG.batch_size)
    algorithm = sac.make_sac(CONFIG, 1)
    update = jax.jit(lambda state: sac.update(state, algorithm, batch, keys[1:]))
    expected, expected_metrics = update(state)
    found, metrics = compiled.run(compiled.init(jax.random.key(3)), replay, 1)
    for name in ("actor", "critic", "target_critic", "actor_average", "log_alpha", "step"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
            getattr(found, name),
            getattr(expected, name),
        )
    np.testing.assert_allclose(metrics["critic/loss"], expected_metrics["critic/loss"], rtol=1e-4)


@pytest.mark.parametrize(
    ("decay_from", "rates"), [(0.5, [1, 1, 0.5, 0]), (0.0, [1, 0.5, 0, 0]), (1.0, [1, 1, 1, 1])]
)
def test_the_learning_rate_falls_to_zero_in_the_last_share_of_the_updates(decay_from, rates):
    config = SACConfig(total_updates=40, decay_from=decay_from, learning_rate=1.0)
    optimizer = sac.make_optimizer(config)
    opt_state, steps = optimizer.init(jnp.zeros(())), []
    for _ in range(41):
        update, opt_state = optimizer.update(jnp.ones(()), opt_state)
        steps.append(-float(update))
    spots = (0, 20, 30, 40) if decay_from else (0, 20, 40, 40)
    np.testing.assert_allclose([steps[k] for k in spots], rates, atol=1e-4)


def numbered(first, count):
    """Transitions in which every field encodes their number."""
    n = jnp.arange(first, first + count, dtype=jnp.float32)
    return sac.Transitions(n[:, None], 0.01 * n[:, None], 10 * n, n[:, None] + 1, n % 2)


def test_the_replay_keeps_the_latest_in_a_ring():
    replay = sac.empty_replay(5, 1, 1)
    for first in (0, 3, 6):
        replay = sac.insert(replay, numbered(first, 3))
    assert int(replay.inserted) == 9
    np.testing.assert_array_equal(replay.ring.obs[:, 0], [5, 6, 7, 8, 4])
    np.testing.assert_array_equal(replay.ring.rewards, 10 * replay.ring.obs[:, 0])
    np.testing.assert_array_equal(replay.ring.terminals, replay.ring.obs[:, 0] % 2)


def test_samples_are_whole_transitions_that_were_inserted():
    replay = sac.insert(sac.empty_replay(100, 1, 1), numbered(1, 4))
    batch = sac.sample(jax.random.key(0), replay, 200)
    assert set(np.asarray(batch.obs[:, 0])) == {1.0, 2.0, 3.0, 4.0}
    np.testing.assert_array_equal(batch.next_obs, batch.obs + 1)
    np.testing.assert_array_equal(batch.rewards, 10 * batch.obs[:, 0])
    np.testing.assert_allclose(batch.actions, 0.01 * batch.obs)
