"""TD3 solves problems whose answer is known; its settings do what they say."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtm_jax import tokens
from mtm_jax.config import TD3Config
from mtm_jax.errors import UserError
from mtm_jax.training import dataset, program, td3
from mtm_jax.types import DataInfo, Trajectories

CONFIG = TD3Config(hidden=(16, 16), learning_rate=3e-3, batch_size=64, polyak=0.05, total_steps=400)
RAW = td3.raw_features(tokens.identity_stats(1))
LEARNT = td3.Features(
    lambda params, obs: obs * params["scale"],
    lambda params, obs, actions: jnp.concatenate([obs * params["scale"], actions], axis=-1),
    {"scale": jnp.full(1, 2.0)},
    finetuned=True,
)


def steps_of(terminal, best=0.5):
    """Episodes of one step each that stay at 0 and earn 1 - (action - best)^2."""
    count = 64
    actions = np.linspace(-0.95, 0.95, count, dtype=np.float32)[:, None]
    still = np.zeros((count, 1), np.float32)
    return dataset.make_dataset(
        Trajectories(
            info=DataInfo("toy", "test", "", 10, (-1.0,), (1.0,)),
            observations=still,
            actions=actions,
            rewards=1.0 - (actions[:, 0] - best) ** 2,
            terminals=np.full(count, terminal),
            lengths=np.ones(count, int),
            final_observations=still,
        ),
        window=1,
    )


def algorithm(features=RAW, **changes):
    return td3.make_td3(dataclasses.replace(CONFIG, **changes), features, action_dim=1)


@functools.cache
def compiled():
    return program.make_program(td3.make_training(algorithm(), obs_dim=1))


def train(terminal, calls=(400,)):
    state, data = compiled().init(jax.random.key(0)), td3.make_data(RAW, steps_of(terminal))
    for length in calls:
        state, metrics = compiled().run(state, data, length)
    return state, metrics


@pytest.fixture(scope="module")
def ended():
    return train(True, (200, 200))


def batch(**changes):
    rows = jnp.linspace(-0.9, 0.9, 8)[:, None]
    values = {"obs": rows, "actions": -rows, "rewards": rows[:, 0], "next_obs": rows[::-1]}
    return dataset.Transitions(**(values | {"terminals": jnp.zeros(8)} | changes))


def fresh(how):
    return td3.init_state(jax.random.key(1), how, obs_dim=1)


def test_the_actor_finds_the_best_action_and_the_critics_its_value(ended):
    state, metrics = ended
    how, at = algorithm(), jnp.zeros((1, 1))
    action = how.act(state.actor, {}, at)
    assert float(action[0, 0]) == pytest.approx(0.5, abs=0.15)
    np.testing.assert_allclose(how.values(state.critic, {}, at, action), 1.0, atol=0.1)
    learnt = {"critic/loss", "critic/q_mean", "actor/loss"}
    assert set(metrics) == learnt | {program.FINITE}


def test_timeouts_are_bootstrapped_and_terminals_are_not(ended):
    going_on, metrics = train(False, (200, 200))
    assert float(metrics["critic/q_mean"]) > 3.0
    assert float(ended[1]["critic/q_mean"]) < 1.0


def test_two_halves_end_where_the_whole_does(ended):
    whole, _ = train(True, (400,))
    for one, other in zip(jax.tree.leaves(ended[0]), jax.tree.leaves(whole), strict=True):
        if not jax.dtypes.issubdtype(one.dtype, jax.dtypes.prng_key):
            np.testing.assert_array_equal(one, other)


def test_a_target_is_the_reward_and_the_discounted_least_value_of_the_next_action():
    how, given = algorithm(noise=0.0, unit=2.0), batch()
    state = fresh(how)
    q = how.values(
        state.target_critic, {}, given.next_obs, how.act(state.actor, {}, given.next_obs)
    )
    found = td3.target_values(state, how, {}, given, jax.random.key(0))
    np.testing.assert_allclose(found, given.rewards / 2.0 + 0.99 * q.min(0), rtol=1e-5)
    over = given.replace(terminals=jnp.ones(8))
    found = td3.target_values(state, how, {}, over, jax.random.key(0))
    np.testing.assert_allclose(found, given.rewards / 2.0)


def test_noise_is_clipped_and_stays_inside_but_passes_gradients():
    action = jnp.linspace(-0.99, 0.99, 64)
    noisy = lambda a: td3.add_noise(jax.random.key(0), a, TD3Config(noise=5.0))  # noqa: E731
    assert float(jnp.abs(noisy(action)).max()) < 1.0
    assert float(jnp.abs(noisy(action) - action).max()) == pytest.approx(0.3, abs=1e-5)
    np.testing.assert_allclose(jax.grad(lambda a: noisy(a).sum())(action), 1.0)


def test_targets_act_by_the_target_actor_where_there_is_one():
    how = algorithm(target_actor=True, noise=0.0)
    state, key = fresh(how), jax.random.key(0)
    before = td3.target_values(state, how, {}, batch(), key)
    other = jax.tree.map(lambda x: x + 0.5, state.actor)
    assert jnp.array_equal(
        td3.target_values(state.replace(actor=other), how, {}, batch(), key), before
    )
    moved = state.replace(target_actor=other)
    assert not jnp.allclose(td3.target_values(moved, how, {}, batch(), key), before)


@pytest.mark.parametrize("step", [4, 5])
def test_a_delayed_actor_moves_only_when_it_is_due(step):
    how = algorithm(policy_delay=2)
    state = fresh(how).replace(step=jnp.int32(step))
    after, _ = td3.update(state, how, {}, batch(), list(jax.random.split(jax.random.key(0))))
    kernel = lambda s: s.actor["network"]["mlp"]["layer_0"]["kernel"]  # noqa: E731
    assert jnp.array_equal(kernel(after), kernel(state)) == (step == 5)


def actor_gradient(alpha, actions):
    how = algorithm(alpha=alpha, actor_noise=False)
    state, given = fresh(how), batch(actions=actions)
    loss = lambda p: td3.actor_loss(p, state.critic, how, {}, given, jax.random.key(0))  # noqa: E731
    flat, _ = jax.flatten_util.ravel_pytree(jax.grad(loss)(state.actor))
    return flat / jnp.linalg.norm(flat)


def test_a_large_alpha_is_td3_and_none_of_it_clones():
    actions = jnp.full((8, 1), 0.7)
    plain, large = (actor_gradient(alpha, actions) for alpha in (None, 1e6))
    np.testing.assert_allclose(large, plain, atol=1e-4)
    how = algorithm(alpha=0.0, actor_noise=False)
    state, given = fresh(how), batch(actions=actions)
    loss = td3.actor_loss(state.actor, state.critic, how, {}, given, jax.random.key(0))
    distance = jnp.mean((how.act(state.actor, {}, given.obs) - 0.7) ** 2)
    assert float(loss) == pytest.approx(float(distance), rel=1e-5)


def test_finetuned_features_are_learnt_in_actor_and_critic_and_frozen_ones_are_not():
    how = algorithm(LEARNT)
    keys = list(jax.random.split(jax.random.key(0)))
    state, _ = td3.update(fresh(how), how, {}, batch(), keys)
    for network in (state.actor, state.critic, state.target_critic):
        assert float(network["features"]["scale"][0]) != 2.0
    assert td3.make_data(LEARNT, steps_of(True)).features == {}
    frozen = LEARNT._replace(finetuned=False)
    assert "features" not in fresh(algorithm(frozen)).actor
    assert td3.make_data(frozen, steps_of(True)).features == frozen.params


@pytest.mark.slow
def test_seeds_train_side_by_side_as_each_alone():
    training = td3.make_training(algorithm(), obs_dim=1)
    group = program.make_group_program([training, training])
    keys = jnp.stack([jax.random.key(0), jax.random.key(3)])
    data = td3.make_data(RAW, steps_of(True))
    states, _ = group.run(group.init(keys), data, 20)
    alone, _ = train(True, (20,))
    for one, both in zip(jax.tree.leaves(alone.actor), jax.tree.leaves(states.actor), strict=True):
        np.testing.assert_allclose(both[0], one, atol=1e-5)


@pytest.mark.parametrize(
    ("field", "value"),
    [("alpha", -1.0), ("noise", float("nan")), ("policy_delay", 0), ("actor_value", "mean")],
)
def test_settings_that_mean_nothing_are_refused_by_name(field, value):
    with pytest.raises(UserError, match=field):
        TD3Config(**{field: value})
