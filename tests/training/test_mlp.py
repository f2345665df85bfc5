"""The baselines learn what their inputs determine, and read nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_models

from mtm_jax.agents import baseline
from mtm_jax.config import MLPConfig, ModelConfig, OptimConfig
from mtm_jax.data import own
from mtm_jax.errors import UserError
from mtm_jax.models.trajectory_model import make_model
from mtm_jax.training import dataset, held_out, mlp, program
from mtm_jax.types import ModalitySpec

WINDOW = 4
SPECS = (ModalitySpec("states", 2), ModalitySpec("returns", 1), ModalitySpec("actions", 1))


@pytest.fixture(scope="module")
def trajectories():
    """Damped sums of the actions, in the first dimension; the second is constant in an episode."""
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (8, 50)).astype(np.float32)
    states = np.zeros((8, 50, 2))
    states[..., 1] = rng.normal(size=(8, 1))
    for t in range(49):
        states[:, t + 1, 0] = 0.5 * states[:, t, 0] + actions[:, t]
    arrays = {"observations": states.reshape(400, 2), "actions": actions.reshape(400, 1)}
    arrays["rewards"] = rng.normal(size=400)
    return own.from_arrays(arrays | {"lengths": [50] * 8}, name="custom")


@pytest.fixture(scope="module")
def stats(trajectories):
    return dataset.compute_stats(dataset.make_dataset(trajectories, mlp.PAIR))


def settings(role):
    optim = OptimConfig(learning_rate=1e-2, warmup_steps=20, total_steps=300)
    return MLPConfig(role, (32,), optim, batch_size=64)


@pytest.fixture(scope="module", params=["id", "fd"])
def trained(request, trajectories, stats):
    config = settings(request.param)
    compiled = program.make_program(mlp.make_training(config, stats))
    data = dataset.make_dataset(trajectories, mlp.PAIR)
    state, metrics = compiled.run(compiled.init(jax.random.key(0)), data, 300)
    return config, state, metrics


def test_dynamics_are_learnt_and_measured_over_every_episode(trained, trajectories, stats):
    config, state, _ = trained
    data = dataset.make_dataset(trajectories, WINDOW)
    answer = held_out.of_mlp(config, stats)
    found = held_out.errors(answer, mlp.acting(state), stats, config.role, data, WINDOW, size=100)
    assert found.shape == (8,) and (found < 0.05).all()
    whole = held_out.errors(answer, mlp.acting(state), stats, config.role, data, WINDOW, size=7)
    np.testing.assert_allclose(found, whole, rtol=1e-4)
    blind = lambda params, windows: jnp.zeros((windows.valid.shape[0], 2 - (config.role == "id")))  # noqa: E731
    guessed = held_out.errors(blind, {}, stats, config.role, data, WINDOW)
    assert (guessed > 3 * found).all()


@pytest.mark.parametrize("role", sorted(mlp.READS))
def test_a_role_reads_what_it_says_and_nothing_else(stats, role):
    config = settings(role)
    params = mlp.init(config, stats, jax.random.key(1)).params
    rng, dims = np.random.default_rng(1), {"states": 2, "returns": 1, "actions": 1, "rewards": 1}
    values = {m: rng.uniform(-0.5, 0.5, (2, d)).astype(np.float32) for m, d in dims.items()}
    plain = mlp.predict(config, stats, params, values)
    for modality, x in values.items():
        for offset in (0, 1):
            changed = x.copy()
            changed[offset] += 0.1
            found = mlp.predict(config, stats, params, values | {modality: changed})
            assert (found != plain).any() == ((modality, offset) in mlp.READS[role])


def test_steps_without_an_action_do_not_count(stats):
    valid, has = jnp.ones((3, 2), bool).at[2, 1].set(False), jnp.array([True, False, True])
    windows = dataset.Windows({}, valid, {"actions": has})
    np.testing.assert_array_equal(mlp.counted("bc", windows), [True, False, True])
    np.testing.assert_array_equal(mlp.counted("fd", windows), [True, False, False])


def test_networks_side_by_side_act_as_each_does_alone(stats):
    config = settings("rcbc")
    both = jax.vmap(lambda key: mlp.init(config, stats, key).params)(
        jax.random.split(jax.random.key(0), 2)
    )
    obs = np.random.default_rng(2).normal(size=(6, 2)).astype(np.float32)
    found = baseline.Baselines(config, stats, both, 0.5).decide(obs)
    for k in range(2):
        alone = jax.tree.map(lambda x, k=k: x[k : k + 1], both)
        rows = slice(3 * k, 3 * k + 3)
        own_actions = baseline.Baselines(config, stats, alone, 0.5).decide(obs[rows])
        np.testing.assert_allclose(found[rows], own_actions, atol=1e-6)
    other = baseline.Baselines(config, stats, both, 3.0).decide(obs)
    assert (other != found).any()


def test_questions_that_cannot_be_answered_are_refused(trajectories, stats):
    short = make_model(ModelConfig(SPECS, 1, 8, 2, 1, 1))
    with pytest.raises(UserError, match="cannot answer 'fd': its window is a single step"):
        held_out.of_model(short, stats, "fd")
    blind = make_model(ModelConfig(SPECS[:2], 4, 8, 2, 1, 1))
    with pytest.raises(UserError, match="cannot answer 'id': it has no actions"):
        held_out.of_model(blind, stats, "id")
    with pytest.raises(UserError, match="role 'fd' cannot act"):
        baseline.Baselines(settings("fd"), stats, {}).start(np.zeros((1, 2)))
    with pytest.raises(UserError, match="no MLP has the role 'pi'"):
        MLPConfig("pi")


def test_the_last_action_is_hidden_where_it_would_tell_the_state(trajectories, stats):
    model = make_model(ModelConfig(SPECS, WINDOW, 8, 2, 1, 1, dropout=0.0))
    params = random_models.noisy_params(model)
    data = dataset.make_dataset(trajectories, WINDOW)
    windows = dataset.take_windows(data, jnp.arange(5), WINDOW)
    values = dict(windows.values)
    values["actions"] = values["actions"].at[:, -1].add(0.3)
    for question, sees in (("fd", True), ("fd_alone", False), ("id", False)):
        answer = jax.jit(held_out.of_model(model, stats, question))
        changed = answer(params, windows._replace(values=values))
        assert (changed != answer(params, windows)).any() == sees
