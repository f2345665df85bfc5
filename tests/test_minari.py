import dataclasses
import json

import gymnasium
import minari as minari_library
import numpy as np
import pytest
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage

from mtm_jax.data import minari
from mtm_jax.errors import UserError
from mtm_jax.types import DataInfo, Trajectories

HOPPER = DataInfo("hopper-medium", "a test", "Hopper-v5", 1000, (-1.0,) * 3, (1.0,) * 3)
ID = "mtm_jax/hopper-test-v0"


def make(lengths=(4, 3, 5)):
    rng = np.random.default_rng(0)
    rows = sum(lengths)
    return Trajectories(
        observations=rng.normal(size=(rows, 11)).astype(np.float32),
        actions=rng.uniform(-1, 1, (rows, 3)).astype(np.float32),
        rewards=rng.normal(size=rows).astype(np.float32),
        terminals=np.arange(rows) == lengths[0] - 1,
        lengths=np.array(lengths),
        final_observations=rng.normal(size=(len(lengths), 11)).astype(np.float32),
        info=HOPPER,
    )


@pytest.fixture
def written(tmp_path):
    return minari.write(make(), ID, tmp_path)


def edit_metadata(folder, **changes):
    path = folder / "data" / "metadata.json"
    metadata = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in metadata.items() if v is not None}))


def assert_same_data(one, other):
    for field in dataclasses.fields(Trajectories):
        if field.name not in ("info", "available"):
            np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


def test_what_is_written_is_read_back(written, tmp_path):
    assert written == tmp_path / ID
    read = minari.read(ID, "hopper-medium", root=tmp_path)
    assert_same_data(read, make())
    assert read.info == dataclasses.replace(HOPPER, source="minari")
    assert_same_data(minari.read(written), make())


def test_the_library_loads_what_is_written(written, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    assert list(minari_library.list_local_datasets()) == [ID]
    data = minari_library.load_dataset(ID)
    assert (data.total_episodes, data.total_steps) == (3, 12)
    assert data.spec.env_spec.id == "Hopper-v5"
    first, last = data[0], data[2]
    assert first.observations.shape == (5, 11)
    assert (first.terminations[-1], first.truncations[-1]) == (True, False)
    assert (last.terminations[-1], last.truncations[-1]) == (False, True)
    assert data.observation_space.contains(first.observations[0])
    assert "total_steps=4" in repr(first)


def test_what_the_library_writes_is_read(tmp_path):
    data, box = make(), gymnasium.spaces.Box
    storage = MinariStorage.new(
        tmp_path,
        observation_space=box(-np.inf, np.inf, (11,), np.float64),
        action_space=box(-1, 1, (3,), np.float32),
        env_spec=gymnasium.spec("Hopper-v5"),
    )
    buffers = []
    for k, start in enumerate(data.starts):
        rows = slice(start, start + data.lengths[k])
        observations = np.concatenate([data.observations[rows], data.final_observations[[k]]])
        flags = list(data.terminals[rows])
        buffers.append(
            EpisodeBuffer(
                observations=observations.astype(np.float64),
                actions=data.actions[rows],
                rewards=list(data.rewards[rows]),
                terminations=flags,
                truncations=flags,
            )
        )
    storage.update_episodes(buffers)
    read = minari.read(tmp_path, "hopper-medium")
    assert_same_data(read, data)
    assert read.info.env_id == "Hopper-v5"


def test_the_user_root_is_minaris(written, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    assert_same_data(minari.read(ID), make())
    monkeypatch.delenv("MINARI_DATASETS_PATH")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert minari.user_root() == tmp_path / ".minari" / "datasets"


def test_an_existing_data_set_is_never_overwritten(written, tmp_path):
    before = (written / "data" / "main_data.hdf5").read_bytes()
    with pytest.raises(UserError, match="there is a data set in .* already"):
        minari.write(make((2, 2)), ID, tmp_path)
    assert (written / "data" / "main_data.hdf5").read_bytes() == before
    assert [p.name for p in written.parent.iterdir()] == [written.name]


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        minari.write(make(), ID, tmp_path, extra={"unwritable": object()})
    assert list((tmp_path / "mtm_jax").iterdir()) == []


def test_stored_specifications_are_never_run(written):
    spec = {"id": "Hopper-v5", "entry_point": "os:abort", "kwargs": {}, "max_episode_steps": 3}
    edit_metadata(written, env_spec=json.dumps(spec), observation_space=None, action_space=None)
    info = minari.read(written).info
    assert (info.env_id, info.max_episode_steps) == ("Hopper-v5", 1000)


def test_an_id_that_is_not_ours_is_refused(written):
    edit_metadata(written, env_spec=json.dumps({"id": "Evil-v0"}))
    with pytest.raises(UserError, match="'Evil-v0' is not allowed"):
        minari.read(written)


def test_without_a_stored_id_the_name_tells(written):
    edit_metadata(written, env_spec=None, dataset_id="mujoco/hopper/medium-v0")
    assert minari.read(written).info.env_id == "Hopper-v5"
    edit_metadata(written, dataset_id="mine/v0")
    assert minari.read(written, "hopper-x").info.env_id == "Hopper-v5"
    with pytest.raises(UserError, match="environment of Minari data set .* cannot be told"):
        minari.read(written, "x")


def test_a_name_of_another_environment_is_refused(written):
    with pytest.raises(UserError, match="recorded in Hopper-v5, which is not the walker2d"):
        minari.read(written, "walker2d-medium")


def test_an_explicit_info_is_taken_as_it_is(written):
    edit_metadata(written, env_spec=json.dumps({"id": "AdroitHandDoor-v1"}))
    info = DataInfo("other", "a test", "Other-v0", 200, (-1.0,) * 3, (1.0,) * 3)
    assert minari.read(written, info).info == info


def test_missing_data_sets_say_how_to_get_them(tmp_path):
    with pytest.raises(UserError, match="minari download mujoco/hopper/medium-v0"):
        minari.read("mujoco/hopper/medium-v0", root=tmp_path)


def test_damage_is_noticed(written):
    path = written / "data" / "main_data.hdf5"
    good = path.read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(UserError, match="its checksum differs"):
        minari.read(written)
    edit_metadata(written, sha256=None)
    path.write_bytes(good[:-100])
    with pytest.raises(UserError, match="cannot be read"):
        minari.read(written)
    path.unlink()
    with pytest.raises(UserError, match="lacks main_data.hdf5"):
        minari.read(written)
    (written / "data" / "metadata.json").write_text("{")
    with pytest.raises(UserError, match="metadata of a Minari data set cannot be read"):
        minari.read(written)


@pytest.mark.parametrize("kind", ["group", "short"])
def test_episodes_of_another_shape_are_refused(written, kind):
    import h5py

    edit_metadata(written, sha256=None)
    with h5py.File(written / "data" / "main_data.hdf5", "a") as file:
        del file["episode_1/observations"]
        if kind == "group":
            file.create_group("episode_1/observations/image")
        else:
            file["episode_1/observations"] = np.zeros((3, 11))
    words = {"group": "not flat arrays", "short": "episode 1 has .*one more observation"}
    with pytest.raises(UserError, match=words[kind]):
        minari.read(written)
