"""A configuration and a data set become the settings of a program."""

import dataclasses
import tracemalloc

import jax
import numpy as np
import pytest

from experiments.training import build
from mtm_jax.errors import UserError
from mtm_jax.types import DataInfo, Trajectories


@pytest.fixture
def config(tiny_config, tmp_path):
    return tiny_config(tmp_path / "run")


@pytest.fixture
def data(config):
    return build.load_data(config)


def test_data_are_split_by_episode_and_described(config, data):
    assert data.episodes == 12
    episodes = [11, 1]
    steps = [len(part.terminals) for part in (data.train, data.valid)]
    assert sum(steps) == sum(20 + 2 * e for e in range(12))
    assert round(12 * config.data.train_fraction) == episodes[0]
    rewards = np.asarray(data.train.values["rewards"], np.float64)
    assert data.returns.mean == pytest.approx(rewards.sum() / episodes[0], rel=1e-5)
    assert data.returns.best >= data.returns.mean
    mean = np.asarray(data.train.values["states"]).mean(0)
    np.testing.assert_allclose(data.stats["states"].mean, mean, atol=1e-6)


def test_the_summary_says_what_was_read(data):
    assert f"12 episodes, {sum(20 + 2 * e for e in range(12))} steps" in build.summary(data)


def test_a_validation_part_of_short_episodes_is_no_obstacle(tiny_config, tmp_path):
    config = tiny_config(tmp_path / "run", "model.window=40", "data.split_seed=1")
    data = build.load_data(config)
    assert int(data.valid.window_steps.max()) < 40


@pytest.mark.parametrize("variant", ["m3pc", "mtm"])
def test_without_rewards_a_model_knows_states_and_actions(tiny_config, tmp_path, variant):
    name = f"hopper-medium,variant={variant},preset=paper"
    config = tiny_config(tmp_path / "run", "data.rewards=False", name=name)
    data = build.load_data(config)
    settings = build.pretrain_config(config, data)
    assert [m.name for m in settings.model.modalities] == ["states", "actions"]
    assert data.returns.best is None


def test_m3pc_has_rewards_and_a_distribution_over_actions(config, data):
    settings = build.pretrain_config(config, data)
    found = {m.name: (m.features, m.head) for m in settings.model.modalities}
    assert found == {
        "states": (11, "continuous"),
        "returns": (1, "continuous"),
        "actions": (3, "tanh_normal"),
        "rewards": (1, "continuous"),
    }
    assert (settings.model.window, settings.model.width) == (8, 16)
    assert (settings.optim.total_steps, settings.optim.warmup_steps) == (30, 3)
    assert settings.masks.patterns == (("random_autoregressive", 1.0),)
    assert settings.batch_size == 16


def test_mtm_has_three_modalities_of_squared_error(tiny_config, tmp_path, data):
    config = tiny_config(tmp_path / "run", name="hopper-medium,preset=paper,variant=mtm")
    found = build.model_config(config, data).modalities
    assert [(m.name, m.head) for m in found] == [
        (name, "continuous") for name in ("states", "returns", "actions")
    ]


def test_bins_make_one_token_per_dimension(tiny_config, tmp_path, data):
    name = "hopper-medium,preset=paper,variant=mtm"
    config = tiny_config(tmp_path / "run", "model.bins=9", name=name)
    found = {m.name: m for m in build.model_config(config, data).modalities}
    assert found["states"].tokens_per_step == 11
    assert {m.features for m in found.values()} == {9}
    assert {m.head for m in found.values()} == {"categorical"}


def test_bins_are_refused_where_actions_are_continuous(tiny_config, tmp_path, data):
    config = tiny_config(tmp_path / "run", "model.bins=9")
    with pytest.raises(UserError, match="model.bins is 9 with variant 'm3pc'"):
        build.model_config(config, data)


@pytest.mark.parametrize(("backend", "dtype"), [("cpu", "float32"), ("gpu", "bfloat16")])
def test_the_compute_type_follows_the_device(config, data, monkeypatch, backend, dtype):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert build.model_config(config, data).compute_dtype == dtype


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("builtin", "hopper-medium-m3pc-paper-seed0"),
        ("d4rl", "hopper-medium-d4rl-m3pc-paper-seed0"),
        ("some/where/my file.hdf5", "hopper-medium-my-file-m3pc-paper-seed0"),
    ],
)
def test_run_folders_are_named_after_what_is_run(tiny_config, tmp_path, source, name):
    config = tiny_config(tmp_path)
    config.source = source
    assert str(build.default_out(config)) == f"runs/pretrain/{name}"


def make_halfcheetah(episodes, steps=1000):
    count, rng = episodes * steps, np.random.default_rng(0)
    bounds = (-1.0,) * 6, (1.0,) * 6
    return Trajectories(
        observations=rng.standard_normal((count, 17), np.float32),
        actions=rng.uniform(-1, 1, (count, 6)).astype(np.float32),
        rewards=rng.standard_normal(count, np.float32),
        terminals=np.zeros(count, bool),
        lengths=np.full(episodes, steps),
        final_observations=np.zeros((episodes, 17), np.float32),
        info=DataInfo("halfcheetah-medium", "a test", "HalfCheetah-v5", 1000, *bounds),
    )


def test_memory_stays_near_the_raw_size_of_the_data(config):
    raw = 40 * 1000 * (17 + 6 + 1) * 4  # bytes
    build.split(make_halfcheetah(2), config)  # what is compiled and imported once is not data
    tracemalloc.start()
    data = build.split(make_halfcheetah(40), config)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * raw
    assert sum(x.nbytes for x in jax.tree.leaves((data.train, data.valid))) < 1.3 * raw


def test_data_without_rewards_have_no_returns(config):
    whole = make_halfcheetah(4)
    nowhere = np.zeros(4, bool)
    data = build.split(
        dataclasses.replace(whole, available={"rewards": nowhere, "returns": nowhere}), config
    )
    assert (data.returns.best, data.returns.mean) == (None, None)
    assert "no returns" in build.summary(data)
