"""IQL values problems whose answer is known, and takes the released code's steps."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtm_jax import config, tokens
from mtm_jax.errors import UserError
from mtm_jax.models import critics
from mtm_jax.training import dataset, iql, program
from mtm_jax.types import DataInfo, Trajectories

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "iql.npz"
NAN, INF = float("nan"), float("inf")


def golden_mlp(arrays, prefix):
    """Flax layers from torch's, whose weights are (out, in)."""
    return {
        f"layer_{i}": {
            "kernel": arrays[f"{prefix}.{2 * i}.weight"].T,
            "bias": arrays[f"{prefix}.{2 * i}.bias"],
        }
        for i in range(3)
    }


def golden_params(arrays, when):
    """Parameters of all networks; the target starts as Q."""
    target = f"qtarget{when}" if when else "q0"
    twins = {
        name: {f"member_{m}": golden_mlp(arrays, f"{prefix}/q{m + 1}.net") for m in range(2)}
        for name, prefix in (("q", f"q{when}"), ("target_q", target))
    }
    v = {"mlp": golden_mlp(arrays, f"v{when}/v.net")}
    policy = {
        "mlp": golden_mlp(arrays, f"pi{when}/net.net"),
        "log_std": arrays[f"pi{when}/log_std"],
    }
    return jax.tree.map(jnp.asarray, twins | {"v": v, "policy": policy})


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def golden_stats(golden):
    mean, std = jnp.asarray(golden["obs_mean"]), jnp.asarray(golden["obs_std"])
    return tokens.Stats(mean=mean, std=std, min=mean, max=mean)


def test_values_are_those_of_the_release_in_raw_units(golden, golden_stats):
    params = golden_params(golden, 0)
    obs, actions = jnp.asarray(golden["obs"]), jnp.asarray(golden["act"])
    q = iql.q_values(params, golden_stats, obs, actions)
    assert q.shape == (2, 32)
    np.testing.assert_allclose(q.min(0), golden["q_min_0"], atol=1e-6)
    np.testing.assert_allclose(iql.v_values(params, golden_stats, obs), golden["v_0"], atol=1e-6)
    one = iql.q_values(params, golden_stats, obs[3], actions[3])
    np.testing.assert_allclose(one, q[:, 3], atol=1e-6)


def test_three_updates_are_those_of_the_release(golden, golden_stats):
    settings = config.CriticConfig(
        hidden=(32, 32), polyak=1e-3, total_steps=1000, policy=True, batch_size=32
    )
    compiled = program.make_program(iql.make_training(settings, 11, 3, golden_stats))
    state = compiled.init(jax.random.key(0)).replace(**golden_params(golden, 0))
    batch = dataset.Transitions(
        obs=golden["obs"],
        actions=golden["act"],
        rewards=golden["rew"][:, 0],
        next_obs=golden["next_obs"],
        terminals=golden["done"][:, 0],
    )
    step = jax.jit(lambda state, batch: iql.update(state, settings, golden_stats, batch))
    logged = {"value_loss": "v_loss", "q_loss": "q_loss", "actor_loss": "policy_loss"}
    for k in range(3):
        state, metrics = step(state, batch)
        for theirs, ours in logged.items():
            assert metrics[f"critic/{ours}"] == pytest.approx(golden[f"log_{k}/{theirs}"], rel=1e-5)
    assert int(state.step) == 3
    start = golden_params(golden, 0)
    for name, expected in golden_params(golden, 3).items():
        found = getattr(state, name)
        # An update moves a parameter by about 3e-4, one of the target by less than 1e-6.
        tolerance = 1e-8 if name == "target_q" else 2e-6
        jax.tree.map(
            lambda a, b, t=tolerance: np.testing.assert_allclose(a, b, rtol=1e-6, atol=t),
            *(found, expected),
        )
        changes = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), start[name], expected)
        assert max(jax.tree.leaves(changes)) > 10 * tolerance


# A world of four states: chain 0 -> 1 -> end, whose rewards are 1 and 2; a loop 2 -> 2 that only
# time limits end, with reward 1; a bandit 3 -> end, which pays 1 for the action 0.5, else nothing.
DISCOUNT = 0.5
WORLD = config.CriticConfig(
    *((32, 32), 2),
    discount=DISCOUNT,
    learning_rate=3e-3,
    polyak=0.05,
    batch_size=64,
    total_steps=900,
    policy=True,
    policy_temperature=2.0,
    terminals=True,
)


def world(final_known=True):
    """Episodes (0, 1), (2, 2), (2,), (3,), (3,)."""
    states = np.array([0, 1, 2, 2, 2, 3, 3])
    final = np.eye(4, dtype=np.float32)[[2, 2, 2, 2, 2]]
    final[[0, 3, 4]] = np.nan  # after a terminal
    if not final_known:
        final[:] = np.nan
    return Trajectories(
        observations=np.eye(4, dtype=np.float32)[states],
        actions=np.array([0, 0, 0, 0, 0, -0.5, 0.5], np.float32)[:, None],
        rewards=np.array([1, 2, 1, 1, 1, 0, 1], np.float32),
        terminals=np.array([0, 1, 0, 0, 0, 1, 1], bool),
        lengths=np.array([2, 2, 1, 1, 1]),
        final_observations=final,
        info=DataInfo("world", "a test", "", 10, (-1.0,), (1.0,)),
    )


@pytest.fixture(scope="module")
def trained():
    data = dataset.make_dataset(world(), 1)
    stats = dataset.compute_stats(data)["states"]
    compiled = program.make_program(iql.make_training(WORLD, 4, 1, stats))
    state, metrics = compiled.init(jax.random.key(0)), None
    for _ in range(3):
        state, metrics = compiled.run(state, data, WORLD.total_steps // 3)
    return state, stats, metrics


def test_states_end_episodes_as_often_as_in_the_data(trained):
    """The world lacks what follows a terminal, so that the last state counts as the end."""
    state, stats, metrics = trained
    params = iql.raw_params(state, WORLD)
    found = iql.end_probabilities(params, stats, jnp.eye(4))
    np.testing.assert_allclose(found[1:], [0.5, 0.0, 1.0], atol=0.06)
    assert 0 < metrics["critic/end_loss"] < 0.5


def test_an_ensemble_is_no_different_for_what_is_learnt_beside_it():
    plain, more = (
        iql.init_state(jax.random.key(0), config.CriticConfig((8,), terminals=t), 4, 2)
        for t in (False, True)
    )
    assert plain.end is None and "end" not in iql.raw_params(plain, config.CriticConfig((8,)))
    jax.tree.map(np.testing.assert_array_equal, (plain.q, plain.v), (more.q, more.v))


def test_normalised_networks_are_known_by_their_parameters_and_value_in_raw_units():
    settings = config.CriticConfig((8, 8), layer_norm=True, unit=10.0)
    state = iql.init_state(jax.random.key(0), settings, 4, 2)
    stats, obs = tokens.identity_stats(4), jax.random.normal(jax.random.key(1), (6, 4))
    raw = iql.raw_params(state, settings)
    ours = iql.q_values(raw, stats, obs, jnp.zeros((6, 2)))
    network = critics.Q((8, 8), normalised=True)
    expected = network.apply({"params": state.q}, obs, jnp.zeros((6, 2)))
    np.testing.assert_allclose(ours, 10 * expected, rtol=1e-4, atol=1e-5)
    v = critics.V((8, 8), normalised=True).apply({"params": state.v}, obs)
    np.testing.assert_allclose(iql.v_values(raw, stats, obs), 10 * v, rtol=1e-4, atol=1e-5)


def test_the_target_is_the_least_of_the_members_that_an_update_draws():
    settings = config.CriticConfig((8,), members=5, least_of=2)
    state = iql.init_state(jax.random.key(0), settings, 4, 2)
    q = jnp.arange(5.0)[:, None] * jnp.ones((5, 3))  # member m says m
    least = [float(iql._least(q, state.replace(step=jnp.int32(n)), settings)[0]) for n in range(40)]
    assert set(least) == {0.0, 1.0, 2.0, 3.0}  # never the largest of five
    assert 6 < sum(m == 0.0 for m in least) < 26  # two of five times
    every = dataclasses.replace(settings, least_of=0)
    np.testing.assert_array_equal(iql._least(q, state, every), jnp.zeros(3))


def test_values_of_a_chain_of_a_loop_and_of_a_bandit_are_their_closed_forms(trained):
    state, stats, _ = trained
    loop = 1 / (1 - DISCOUNT)  # a time limit bootstraps, a terminal does not
    # With Q of 0 and 1 equally often, the expectile tau is tau.
    expected = [1 + DISCOUNT * 2, 2, loop, WORLD.expectile]
    np.testing.assert_allclose(
        iql.v_values(iql.raw_params(state, WORLD), stats, jnp.eye(4)), expected, atol=0.1
    )
    obs, actions = jnp.eye(4)[jnp.array([0, 1, 2, 3, 3])], jnp.array([0, 0, 0, -0.5, 0.5])
    q = iql.q_values(iql.raw_params(state, WORLD), stats, obs, actions[:, None])
    np.testing.assert_allclose(q, np.tile([*expected[:3], 0, 1], (2, 1)), atol=0.1)


def test_the_policy_prefers_the_action_that_pays(trained):
    state, stats, _ = trained
    obs = tokens.encode(stats, jnp.eye(4))
    mean, _ = critics.NormalActor(1, WORLD.hidden).apply({"params": state.policy}, obs)
    # Weights exp(beta A) of the two actions differ by the factor exp(2).
    expected = 0.5 * np.tanh(WORLD.policy_temperature / 2)
    assert float(mean[3, 0]) == pytest.approx(expected, abs=0.15)


def test_metrics_say_what_was_learnt(trained):
    state, _, metrics = trained
    names = ("q_loss", "v_loss", "q_mean", "v_mean", "advantage_std", "policy_loss")
    names += ("end_loss",)
    assert set(metrics) == {f"critic/{name}" for name in names} | {program.FINITE}
    mean_v = np.mean([2, 2, 2, 2, 2, 0.7, 0.7])  # over the data's steps
    assert float(metrics["critic/v_mean"]) == pytest.approx(mean_v, abs=0.1)
    assert float(metrics["critic/q_mean"]) == pytest.approx(11 / 7, abs=0.1)
    assert float(metrics["critic/advantage_std"]) > 0.1
    assert int(state.step) == WORLD.total_steps


def test_an_update_in_another_unit_is_the_update_of_scaled_rewards():
    data = dataset.make_dataset(world(), 1)
    stats, unit = dataset.compute_stats(data)["states"], 50.0
    batch = dataset.sample_transitions(jax.random.key(1), data, 16)
    scaled = dataclasses.replace(WORLD, unit=unit)
    start = iql.init_state(jax.random.key(0), WORLD, 4, 1)
    found, metrics = iql.update(start, scaled, stats, batch)
    expected, plain = iql.update(start, WORLD, stats, batch.replace(rewards=batch.rewards / unit))
    for name in ("q", "v", "target_q"):
        jax.tree.map(np.testing.assert_array_equal, getattr(found, name), getattr(expected, name))
    for name, factor in (("v_mean", unit), ("q_loss", unit**2), ("advantage_std", unit)):
        ours, theirs = (float(m[f"critic/{name}"]) for m in (metrics, plain))
        assert ours == pytest.approx(factor * theirs, rel=1e-5)
    values = [
        iql.v_values(iql.raw_params(state, settings), stats, jnp.eye(4))
        for state, settings in ((found, scaled), (expected, WORLD))
    ]
    np.testing.assert_allclose(values[0], unit * values[1], rtol=1e-5, atol=1e-5)


def test_a_critic_without_a_policy_trains_none_and_has_the_members_asked_for():
    settings = dataclasses.replace(WORLD, members=3, policy=False, hidden=(8,))
    data = dataset.make_dataset(world(final_known=False), 1)
    training = iql.make_training(settings, 4, 1, tokens.identity_stats(4))
    compiled = program.make_program(training)
    state, metrics = compiled.run(compiled.init(jax.random.key(0)), data, 1)
    assert state.policy is None and state.policy_opt is None
    params = iql.raw_params(state, settings)
    assert set(params) == {"q", "v", "end"} and "critic/policy_loss" not in metrics
    values = iql.q_values(params, tokens.identity_stats(4), jnp.eye(4), jnp.zeros((4, 1)))
    assert values.shape == (3, 4) and np.ptp(values, axis=0).min() > 0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("hidden", value) for value in ((), (8, 0))),
        *((key, 0) for key in ("members", "batch_size", "total_steps")),
        *(("expectile", value) for value in (0.0, 1.0, NAN)),
        *(("discount", value) for value in (-0.1, 1.1, NAN)),
        *((key, value) for key in ("learning_rate", "unit") for value in (0.0, NAN, INF)),
        *(("polyak", value) for value in (0.0, 1.1, NAN)),
        *(("policy_temperature", value) for value in (-1.0, NAN, INF)),
    ],
)
def test_senseless_settings_are_refused(key, value):
    with pytest.raises(UserError) as error:
        config.CriticConfig(**{key: value})
    assert str(error.value).startswith(f"{key} is {value!r}; it must be")
