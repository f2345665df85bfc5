import logging

import h5py
import numpy as np
import pytest

from mtm_jax.data import sources
from mtm_jax.data.builtin import behaviours
from mtm_jax.data.d4rl import files as d4rl_files
from mtm_jax.data.download import fetch as download
from mtm_jax.data.minari import reader as minari
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
def nothing_from_elsewhere(empty_home, monkeypatch):
    monkeypatch.setattr(d4rl_files, "PINNED", {})
    monkeypatch.setenv("MINARI_REMOTE", "absent://nowhere")


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


def test_a_missing_d4rl_file_is_downloaded(tmp_path, monkeypatch):
    def fetch(urls, final, **_):
        assert urls[0].endswith("gym_mujoco_v2/hopper_expert-v2.hdf5")
        save_d4rl(final)
        return "0" * 64

    monkeypatch.setattr(download, "fetch", fetch)
    assert len(sources.load("hopper-expert", "d4rl", progress=False).rewards) == sum(LENGTHS)
    assert (tmp_path / "cache/d4rl/hopper_expert-v2.hdf5").is_file()


@pytest.mark.parametrize("source", ["minari", "minari:mujoco/hopper/medium-v0"])
def test_minari_data_are_read_from_the_users_root(tmp_path, monkeypatch, source):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    minari.write(make(), "mujoco/hopper/medium-v0", tmp_path)
    data = sources.load("hopper-medium", source)
    np.testing.assert_array_equal(data.observations, make().observations)
    assert (data.info.name, data.info.source) == ("hopper-medium", source)
    assert data.info.env_id == "Hopper-v5"


@pytest.mark.parametrize(
    ("name", "dataset"),
    [
        ("hopper-expert", "mujoco/hopper/expert-v0"),
        ("walker2d-simple", "mujoco/walker2d/simple-v0"),
        ("pen-human", "D4RL/pen/human-v2"),
        ("door_dense-cloned", "D4RL/door/cloned-v2"),
    ],
)
def test_names_stand_for_minari_ids(monkeypatch, name, dataset):
    asked = []
    monkeypatch.setattr(minari, "read", lambda found, *_, **__: asked.append(found) or make())
    sources.load(name, "minari")
    assert asked == [dataset]


def test_names_that_minari_lacks_are_refused_with_those_it_has():
    with pytest.raises(UserError, match="no data set for 'hopper-medium-replay'; it has hopper-si"):
        sources.load("hopper-medium-replay", "minari")
    with pytest.raises(UserError, match="it has none of this environment"):
        sources.load("lift-mg", "minari")


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


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("builtin", "unknown level 'novice'"),
        ("d4rl", "no D4RL file for 'hopper-novice'; choose one of hopper-medium"),
        ("minari", "no data set for 'hopper-novice'"),
    ],
)
def test_unknown_names_are_refused(source, says):
    with pytest.raises(UserError, match=says):
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


def save_door(path, hinge):
    """Two episodes of three steps; the hinge of the door is at the given angles."""
    observations = np.zeros((6, 39), np.float32)
    observations[:, 28] = hinge
    with h5py.File(path, "w") as file:
        file["observations"] = observations
        file["actions"] = np.zeros((6, 28), np.float32)
        file["rewards"] = np.full(6, 7.0, np.float32)
        file["terminals"] = np.zeros(6, bool)
        file["timeouts"] = np.array([0, 0, 1, 0, 0, 1], bool)
    return path


def test_rewards_of_adroit_are_those_of_the_papers_unless_dense_ones_are_asked_for(tmp_path):
    path = str(save_door(tmp_path / "demos.hdf5", [0.0, 1.0, 1.4, 0.0, 0.1, 0.2]))
    door = sources.load("door-human", path)
    assert door.rewards.tolist() == [0, 1, 1, 0, 0, 0]
    assert door.info.env_id == "mtm_jax/AdroitDoorCompletion-v1"
    dense = sources.load("door_dense-human", path)
    assert dense.rewards.tolist() == [7.0] * 6
    assert dense.info.env_id == "AdroitHandDoor-v1"


def test_files_are_read_by_what_is_in_them(tmp_path, monkeypatch):
    called = []
    for reader in ("exorl", "robomimic", "own"):
        module = getattr(sources, reader)
        monkeypatch.setattr(module, "read", lambda *_, _r=reader, **__: called.append(_r) or make())
    with h5py.File(tmp_path / "demos.hdf5", "w") as file:
        file.create_group("data/demo_0")
    (tmp_path / "proto/buffer").mkdir(parents=True)
    np.savez(tmp_path / "proto/buffer/episode_0_2.npz", a=1)
    np.savez(tmp_path / "mine.npz", a=1)
    (tmp_path / "proto.zip").write_bytes(b"")
    for file in ("demos.hdf5", "proto", "proto.zip", "mine.npz"):
        sources.load("", str(tmp_path / file))
    assert called == ["robomimic", "exorl", "exorl", "own"]


def test_what_a_user_calls_a_data_set_is_name_and_source(tmp_path, monkeypatch):
    path = save_d4rl(tmp_path / "hopper.hdf5")
    assert sources.split("hopper-medium") == ("hopper-medium", "builtin")
    assert sources.split("d4rl:hopper-medium") == ("hopper-medium", "d4rl")
    assert sources.split("minari:a/b-v0") == ("", "minari:a/b-v0")
    assert sources.split(str(path)) == ("", str(path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hopper-medium").mkdir()
    assert sources.split("hopper-medium") == ("hopper-medium", "builtin")
    assert sources.split("./hopper-medium") == ("", "./hopper-medium")
    for absent in ("/no/such/file.hdf5", "absent.npz"):
        with pytest.raises(UserError, match="there is no file or folder"):
            sources.split(absent)
