import logging

import h5py
import numpy as np
import pytest

from mtm_jax.data import behaviours, minari, sources
from mtm_jax.errors import UserError
from mtm_jax.types import DataInfo, Trajectories

LENGTHS = (4, 3, 5)


def make():
    rows = sum(LENGTHS)
    return Trajectories(
        observations=np.random.default_rng(0).normal(size=(rows, 11)).astype(np.float32),
        actions=np.zeros((rows, 3), np.float32),
        rewards=np.arange(rows, dtype=np.float32),
        terminals=np.zeros(rows, bool),
        lengths=np.array(LENGTHS),
        final_observations=np.zeros((3, 11), np.float32),
        info=DataInfo("x", "a test", "Hopper-v5", 1000, (-1.0,) * 3, (1.0,) * 3),
    )


def save_d4rl(path, scale=1.0):
    data = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    timeouts = np.zeros(len(data.rewards), bool)
    timeouts[np.cumsum(LENGTHS) - 1] = True
    with h5py.File(path, "w") as file:
        for name in ("observations", "actions", "terminals"):
            file[name] = getattr(data, name)
        file["rewards"] = data.rewards * scale
        file["timeouts"] = timeouts
    return path


@pytest.fixture(autouse=True)
def empty_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MTM_JAX_DATA", str(tmp_path / "cache"))
    for name in ("D4RL_DATASET_DIR", "MINARI_DATASETS_PATH"):
        monkeypatch.delenv(name, raising=False)


def test_builtin_data_are_asked_of_behaviours(monkeypatch):
    calls = []
    monkeypatch.setattr(behaviours, "load", lambda *args, **kwargs: calls.append((args, kwargs)))
    sources.load("hopper-medium", steps=200, seed=3, progress=False)
    assert calls == [(("hopper-medium", 200, 3), {"progress": False})]


def test_d4rl_files_are_found_in_order(tmp_path, monkeypatch):
    file = "hopper_medium_replay-v2.hdf5"
    places = [tmp_path / "chosen", tmp_path / "home/.d4rl/datasets", tmp_path / "cache/d4rl"]
    monkeypatch.setenv("D4RL_DATASET_DIR", str(places[0]))
    for scale, place in reversed(list(enumerate(places))):
        save_d4rl(place / file, scale)
        data = sources.load("hopper-medium-replay", "d4rl")
        assert data.rewards[1] == scale
    assert (data.info.name, data.info.source) == ("hopper-medium-replay", "d4rl")
    assert data.info.env_id == "Hopper-v4"


def test_a_missing_d4rl_file_says_what_to_place_where(tmp_path):
    with pytest.raises(UserError) as error:
        sources.load("walker2d-medium-expert", "d4rl")
    url = "http://rail.eecs.berkeley.edu/datasets/offline_rl/gym_mujoco_v2/"
    assert f"{url}walker2d_medium_expert-v2.hdf5" in str(error.value)
    assert f"place it in {tmp_path / 'cache' / 'd4rl'}" in str(error.value)


@pytest.mark.parametrize("source", ["minari", "minari:mujoco/hopper/medium-v0"])
def test_minari_data_are_read_from_the_users_root(tmp_path, monkeypatch, source):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    minari.write(make(), "mujoco/hopper/medium-v0", tmp_path)
    data = sources.load("hopper-medium", source)
    np.testing.assert_array_equal(data.observations, make().observations)
    assert (data.info.name, data.info.source) == ("hopper-medium", source)
    assert data.info.env_id == "Hopper-v5"


def test_a_missing_minari_data_set_is_refused():
    with pytest.raises(UserError, match="minari download mujoco/hopper/expert-v0"):
        sources.load("hopper-expert", "minari")


def test_a_path_is_a_d4rl_file(tmp_path):
    path = save_d4rl(tmp_path / "mine.hdf5")
    data = sources.load("hopper-medium", str(path))
    assert data.lengths.tolist() == list(LENGTHS)
    assert (data.info.name, data.info.source) == ("hopper-medium", str(path))
    with pytest.raises(UserError, match="actions has 3 dimensions but Walker2d-v4 has 6"):
        sources.load("walker2d-medium", str(path))


def test_a_folder_is_a_minari_data_set(tmp_path, monkeypatch):
    folder = minari.write(make(), "mine/hopper-v0", tmp_path)
    assert sources.load("hopper-medium", str(folder)).lengths.tolist() == list(LENGTHS)
    monkeypatch.chdir(tmp_path)
    assert sources.load("hopper-medium", "mine/hopper-v0").lengths.tolist() == list(LENGTHS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty holds no Minari data set"):
        sources.load("hopper-medium", str(tmp_path / "empty"))


@pytest.mark.parametrize("source", ["/no/such/file.hdf5", "bulitin", ""])
def test_what_is_no_source_is_refused(source):
    with pytest.raises(UserError, match="is neither one of builtin, d4rl, minari"):
        sources.load("hopper-medium", source)


@pytest.mark.parametrize("source", ["builtin", "d4rl", "minari"])
def test_unknown_names_are_refused(source):
    with pytest.raises(UserError, match="unknown level 'novice'"):
        sources.load("hopper-novice", source)


def test_an_unknown_environment_is_refused_for_paths_and_ids(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    folder = minari.write(make(), "mine/hopper-v0", tmp_path)
    path = save_d4rl(tmp_path / "hopper.hdf5")
    for source in (str(path), str(folder), "minari:mine/hopper-v0"):
        with pytest.raises(UserError, match="cannot be told from 'ant-medium'"):
            sources.load("ant-medium", source)


def test_steps_of_other_sources_are_said_to_be_ignored(tmp_path, caplog):
    path = save_d4rl(tmp_path / "mine.hdf5")
    with caplog.at_level(logging.INFO, "mtm_jax"):
        data = sources.load("hopper-medium", str(path), steps=5)
    assert len(data.rewards) == sum(LENGTHS)
    assert "steps=5 applies to built-in data" in caplog.text
