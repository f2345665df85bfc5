import contextlib
import dataclasses
import json
import logging
import sys
import tracemalloc

import gymnasium
import h5py
import minari as minari_library
import numpy as np
import pytest
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage

from mtm_jax.data.minari import metadata as minari_metadata
from mtm_jax.data.minari import reader as minari
from mtm_jax.envs import make as make_env
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


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    """No folder of the user's, no network."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MTM_JAX_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("MINARI_REMOTE", "absent://nowhere")
    monkeypatch.delenv("MINARI_DATASETS_PATH", raising=False)


@pytest.fixture
def written(tmp_path):
    return minari.write(make(), ID, tmp_path)


def edit_metadata(folder, **changes):
    path = folder / "data" / "metadata.json"
    metadata = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in metadata.items() if v is not None}))


@contextlib.contextmanager
def edited(folder, **metadata):
    """Change the HDF5 file; its checksum goes, as of a file that is not ours."""
    edit_metadata(folder, **{"sha256": None} | metadata)
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        yield file


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
    assert minari.read(written).info.name == "hopper-test-v0"


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


def test_ids_are_found_in_minaris_folders_and_in_ours_in_order(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "chosen"))
    places = [tmp_path / "chosen", tmp_path / "home/.minari/datasets", tmp_path / "cache/minari"]
    assert list(minari.roots()) == places
    for k, place in reversed(list(enumerate(places))):
        minari.write(make((k + 1, 2)), ID, place)
        assert minari.read(ID).lengths.tolist() == [k + 1, 2]
    monkeypatch.delenv("MINARI_DATASETS_PATH")
    assert list(minari.roots()) == places[1:]
    assert minari.user_root() == places[1]


def test_links_to_folders_are_followed(written, tmp_path):
    (tmp_path / "links").mkdir()
    (tmp_path / "links/mine").symlink_to(written)
    assert_same_data(minari.read("mine", "hopper-x", root=tmp_path / "links"), make())


@pytest.mark.parametrize(
    "dataset",
    [
        "../x",
        "a/../../x",
        "/etc/x",
        "~/x",
        "",
        ".",
        ".hidden/x",
        "a//b",
        "a/",
        "hf://a/b",
        "a\\b",
        "*",
    ],
)
def test_what_could_leave_the_root_is_no_id(dataset, tmp_path):
    minari.write(make(), "x", tmp_path)
    (tmp_path / "root").mkdir()
    with pytest.raises(UserError, match="is not the id of a Minari data set"):
        minari.read(dataset, root=tmp_path / "root")
    with pytest.raises(UserError, match="is not the id of a Minari data set"):
        minari.write(make(), dataset, tmp_path / "root")


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


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """A module that leaves a mark when it is imported; returns the mark and a maker of specs."""
    mark = tmp_path / "mark"
    code = f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n"
    (tmp_path / "hostile_module.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    wrapper = {"name": "w", "entry_point": "hostile_module:wrap", "kwargs": {}}

    def spec(env_id):
        entry = "hostile_module:make"
        made = {"id": env_id, "entry_point": entry, "vector_entry_point": entry}
        made |= {"additional_wrappers": [wrapper], "kwargs": {"x": 1}, "max_episode_steps": 30}
        return json.dumps(json.loads(gymnasium.spec("Hopper-v5").to_json()) | made)

    yield mark, spec
    sys.modules.pop("hostile_module", None)


@pytest.mark.parametrize("env_id", ["Hopper-v5", "Evil-v0", "hostile_module:Hopper-v5"])
def test_stored_specifications_are_never_run(written, hostile, env_id):
    mark, spec = hostile
    edit_metadata(written, env_spec=spec(env_id), eval_env_spec=spec(env_id))
    edit_metadata(written, observation_space=None, action_space=None)  # the library would make it
    if env_id == "Hopper-v5":
        with pytest.raises(
            UserError, match="with x=1 .* the wrapper w .* the code 'hostile_module"
        ):
            minari.read(written)
        env = make_env.make(minari.read(written, HOPPER).info.env_id).unwrapped
        assert type(env).__module__ == "gymnasium.envs.mujoco.hopper_v5"
    else:
        with pytest.raises(UserError, match=f"{env_id!r} is not allowed; .* Hopper-v5, Hopper-v4"):
            minari.read(written)
        assert minari.read(written, "hopper-medium").info.env_id == "Hopper-v5"
    assert not mark.exists()
    assert "hostile_module" not in sys.modules
    with contextlib.suppress(Exception):  # whoever runs it is caught
        gymnasium.make(gymnasium.envs.registration.EnvSpec.from_json(spec(env_id)))
    assert mark.exists()


def test_where_the_stored_id_is_unknown_the_named_environment_must_fit(written):
    edit_metadata(written, env_spec=json.dumps({"id": "MyHopper-v0"}))
    assert minari.read(written, "hopper-mine").info.env_id == "Hopper-v5"
    with pytest.raises(UserError, match="actions has 3 dimensions but Walker2d-v5 has 6"):
        minari.read(written, "walker2d-mine")
    with pytest.raises(UserError, match="'MyHopper-v0' is not allowed"):
        minari.read(ID, root=written.parents[1])


def test_without_a_stored_id_the_name_tells(written):
    edit_metadata(written, env_spec=None, dataset_id="mujoco/hopper/medium-v0")
    assert minari.read(written).info.env_id == "Hopper-v5"
    assert minari.read(ID, root=written.parents[1]).info.name == "hopper-test-v0"
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
    with pytest.raises(
        UserError, match=f"in {tmp_path}; .*minari download mujoco/hopper/medium-v0"
    ):
        minari.read("mujoco/hopper/medium-v0", root=tmp_path, download=False)
    with pytest.raises(UserError, match="holds no Minari data set: it lacks data/metadata.json"):
        minari.read(tmp_path)


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
    path.write_bytes(b"")  # as the library leaves it where no episode was added
    with pytest.raises(UserError, match="cannot be read"):
        minari.read(written)
    path.unlink()
    with pytest.raises(UserError, match="lacks main_data.hdf5; remove that folder and download"):
        minari.read(written)
    (written / "data" / "metadata.json").write_text("{")
    with pytest.raises(UserError, match="metadata of a Minari data set cannot be read"):
        minari.read(written)


def test_the_name_custom_stands_for_an_environment_that_nobody_knows(written):
    edit_metadata(written, env_spec=json.dumps({"id": "Robot-v0"}))
    info = minari.read(written, "custom-robot").info
    assert info == DataInfo("custom-robot", "minari", "", 5, (-1.0,) * 3, (1.0,) * 3)
    bounds = {"low": [-2.0] * 3, "high": [1.0, 2.0, 3.0]}
    edit_metadata(written, action_space=json.dumps({"type": "Box", "shape": [3]} | bounds))
    info = minari.read(written, "custom-robot").info
    assert (info.action_low, info.action_high) == ((-2.0,) * 3, (1.0, 2.0, 3.0))


BOX = {"type": "Box", "dtype": "uint8"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data_format": "arrow"}, "is stored as 'arrow', but only 'hdf5' is read"),
        (
            {"observation_space": {"type": "Dict", "subspaces": {"goal": BOX, "pose": BOX}}},
            "its observation_space is a Dict of goal, pose, but only flat ones are read",
        ),
        (
            {"observation_space": BOX | {"shape": [64, 64, 3]}},
            r"its observation_space is a Box of shape \[64, 64, 3\], but only flat",
        ),
        (
            {"action_space": {"type": "Discrete", "n": 3}},
            "its action_space is a Discrete, but only",
        ),
    ],
)
def test_other_formats_and_spaces_are_refused_by_their_name(written, changes, words):
    stored = {k: v if isinstance(v, str) else json.dumps(v) for k, v in changes.items()}
    edit_metadata(written, **stored)
    with pytest.raises(UserError, match=words):
        minari.read(written)


def test_spaces_that_are_not_stored_are_not_asked_for(written):
    edit_metadata(written, observation_space=None, action_space="{", data_format=None)
    assert_same_data(minari.read(written), make())


def test_truncations_and_infos_are_not_needed(written):
    with edited(written) as file:
        for k in range(3):
            del file[f"episode_{k}/truncations"], file[f"episode_{k}/infos"]
        file["episode_0/infos/qpos"] = np.full((7, 2), np.nan)
    assert_same_data(minari.read(written), make())


def test_episodes_are_read_in_the_order_of_their_numbers(written, caplog):
    with edited(written) as file:
        file.move("episode_0", "episode_2_old")
        file.move("episode_1", "episode_9")
        file.move("episode_2", "episode_10")
        file.create_group("statistics")
    read = minari.read(written)
    np.testing.assert_array_equal(read.observations, make().observations[4:])
    assert read.lengths.tolist() == [3, 5]
    assert "metadata say total_steps=12; 8 are there and read" in caplog.text
    assert "total_episodes=3; 2 are" in caplog.text


def test_totals_that_agree_are_not_mentioned(written, caplog):
    with caplog.at_level(logging.DEBUG, "mtm_jax"):
        minari.read(written)
    assert caplog.text == ""


def replace(file, key, array, **kwargs):
    del file[key]
    if isinstance(array, h5py.Group):
        file[key] = array
    elif array is not None:
        file.create_dataset(key, data=array, **kwargs)


WORDS = np.array(["a", "b", "c"], object)


@pytest.mark.parametrize(
    ("key", "array", "words"),
    [
        ("observations", None, "episode_1 has no flat array of observations .*doesn't exist"),
        ("rewards", None, "episode_1 has no flat array of rewards"),
        ("terminations", None, "episode_1 has no flat array of terminations"),
        ("observations", np.zeros((3, 11)), r"shape \(3, 11\), expected \(4, 11\); .*one more"),
        ("observations", np.zeros((4, 12)), r"shape \(4, 12\), expected \(4, 11\); .*dimensions"),
        ("actions", np.zeros(3), r"actions of episode_1 have shape \(3,\), expected \(3, 3\)"),
        ("rewards", np.zeros((3, 2)), r"rewards of episode_1 have shape \(3, 2\), expected 1 dim"),
        ("rewards", np.float32(0), r"rewards of episode_1 have shape \(\), expected 1 dim"),
        ("rewards", h5py.Empty("f4"), "rewards of episode_1 have shape None, expected 1 dim"),
        ("rewards", WORDS, "rewards of episode_1 cannot be read as numbers"),
        ("rewards", WORDS.astype("S1"), "rewards of episode_1 cannot be read as numbers"),
        ("rewards", np.zeros(3, complex), "rewards of episode_1 cannot be read as numbers"),
        ("rewards", np.array([0, np.nan, 0]), "rewards holds 1 NaN.* row 5"),
        ("observations", np.full((4, 11), 1e300), "observations holds 33 .*float32-exceeding"),
        ("terminations", np.array([0, 0.5, 0]), "terminations is 0.5 at row 5"),
        (
            "terminations",
            np.array([1, 0, 0]),
            "row 4 ends an episode by terminations but not by the",
        ),
        (
            "truncations",
            np.array([0, 1, 0]),
            "row 5 ends an episode by truncations but not by the e",
        ),
    ],
)
def test_damaged_and_ragged_episodes_are_refused(written, key, array, words):
    with edited(written) as file:
        replace(file, f"episode_1/{key}", array)
    with pytest.raises(UserError, match=words):
        minari.read(written)


def test_parts_of_a_dict_space_are_refused_also_where_no_space_is_stored(written):
    with edited(written, observation_space=None) as file:
        for k in range(3):
            replace(file, f"episode_{k}/observations", file.create_group(f"dict_{k}"))
    with pytest.raises(UserError, match="not a dataset.*Dict or Tuple space are not read"):
        minari.read(written)


def test_first_episodes_without_dimensions_are_refused(written):
    with edited(written) as file:
        replace(file, "episode_0/observations", np.zeros(5))
    with pytest.raises(UserError, match=r"observations of episode_0 have shape \(5,\), expected 2"):
        minari.read(written)


def test_sizes_beyond_all_memory_are_refused(written):
    with edited(written) as file:
        del file["episode_1/rewards"]
        file.create_dataset("episode_1/rewards", (2**62,), "f4", chunks=(1024,))
    with pytest.raises(UserError, match="more than .* times the file's size"):
        minari.read(written)


def test_more_episodes_than_the_file_can_hold_are_refused(written):
    with edited(written) as file:
        rows = {"observations": (100_001, 11), "actions": (100_000, 3)}
        for key, shape in (rows | dict.fromkeys(("rewards", "terminations"), (100_000,))).items():
            file.create_dataset(f"all/{key}", shape, "f4")  # never written, so without storage
        for k in range(100):
            file[f"episode_{k + 3}"] = file["all"]
    with pytest.raises(UserError, match="in a file of .* bytes, more than"):
        minari.read(written)


@pytest.mark.parametrize("kind", ["link", "group", "raw", "virtual"])
def test_arrays_in_another_file_are_not_read(written, tmp_path, kind):
    secret, rewards = tmp_path / "secret.hdf5", np.zeros(3)
    with h5py.File(secret, "w") as file:
        for key, shape in {"observations": (4, 11), "actions": (3, 3)}.items():
            file[f"episode_1/{key}"] = np.zeros(shape)
        file["episode_1/rewards"], file["episode_1/terminations"] = rewards, rewards
    with edited(written) as file:
        key = "episode_1" if kind == "group" else "episode_1/rewards"
        del file[key]
        if kind == "raw":
            file.create_dataset(key, (3,), "f4", external=[(str(secret), 0, 12)])
        elif kind == "virtual":
            layout = h5py.VirtualLayout((3,), "f4")
            layout[:] = h5py.VirtualSource(str(secret), key, (3,))
            file.create_virtual_dataset(key, layout)
        else:
            file[key] = h5py.ExternalLink(str(secret), key)
    with pytest.raises(UserError, match=f"{key} is stored in another file; only data"):
        minari.read(written)


def test_data_sets_without_episodes_or_steps_are_refused(written, tmp_path):
    with edited(written) as file:
        for name in list(file):
            del file[name]
    with pytest.raises(UserError, match="holds no episodes"):
        minari.read(written)
    with edited(written) as file:
        group = file.create_group("episode_0")
        shapes = {"observations": (1, 11), "actions": (0, 3), "rewards": (0,), "terminations": (0,)}
        for key, shape in shapes.items():
            group[key] = np.zeros(shape)
    with pytest.raises(UserError, match="episode_0 has 0 steps of 0 in all; remove"):
        minari.read(written)


def test_numbers_of_other_types_become_float32(written):
    with edited(written) as file:
        for k, n in enumerate((4, 3, 5)):
            replace(file, f"episode_{k}/observations", np.ones((n + 1, 11), np.int64))
            replace(file, f"episode_{k}/rewards", np.arange(n) == n - 1, chunks=True)
            replace(file, f"episode_{k}/actions", np.full((n, 3), 0.1), compression="gzip")
            replace(file, f"episode_{k}/terminations", np.zeros(n, np.uint8))
    read = minari.read(written)
    assert {read.observations.dtype, read.actions.dtype, read.rewards.dtype} == {np.dtype("f4")}
    assert (read.actions == np.float32(0.1)).all() and (read.observations == 1).all()
    assert np.flatnonzero(read.rewards).tolist() == [3, 6, 11]
    assert read.terminals.dtype == bool and not read.terminals.any()


def test_reading_takes_at_most_twice_the_memory_of_the_arrays(tmp_path):
    steps, dims = 50_000, (17, 6)
    rows = np.zeros((steps, dims[0]), np.float32), np.zeros((steps, dims[1]), np.float32)
    info = DataInfo("halfcheetah-x", "a test", "HalfCheetah-v5", 1000, (-1.0,) * 6, (1.0,) * 6)
    flat = np.zeros(steps, np.float32)
    data = Trajectories(*rows, flat, flat > 0, np.full(50, 1000), np.zeros((50, 17), "f4"), info)
    folder = minari.write(data, ID, tmp_path)
    tracemalloc.start()
    try:
        read = minari.read(folder)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 2 * sum(a.nbytes for a in (read.observations, read.actions, read.rewards))


class Drifting(gymnasium.Env):
    """Says that it is Hopper-v5, and is cheaper."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (11,), np.float64)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (3,), np.float32)
    spec = gymnasium.spec("Hopper-v5")

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.normal(size=11), {"x": 0.0}

    def step(self, action):
        state = self.np_random.normal(size=11)
        return state, float(state[0]), bool(state[0] > 1.5), bool(state[1] > 1.0), {"x": 1.0}


@pytest.mark.filterwarnings("ignore::UserWarning")  # of the library, about metadata left out
def test_what_the_librarys_collector_records_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    env = minari_library.DataCollector(Drifting(), record_infos=True)
    for seed in range(4):
        env.reset(seed=seed)
        while not any(env.step(env.action_space.sample())[2:4]):
            pass
    library = list(env.create_dataset("mine/collected-v0").iterate_episodes())
    read = minari.read("mine/collected-v0")
    assert (read.info.name, read.info.env_id) == ("hopper-collected-v0", "Hopper-v5")
    assert read.lengths.tolist() == [len(episode) for episode in library]
    assert len(set(read.lengths.tolist())) > 1 and 0 < read.terminals.sum() < 4
    for k, episode in enumerate(library):
        rows = slice(read.starts[k], read.starts[k] + read.lengths[k])
        observations = np.concatenate([read.observations[rows], read.final_observations[[k]]])
        np.testing.assert_array_equal(observations, np.float32(episode.observations))
        np.testing.assert_array_equal(read.actions[rows], episode.actions)
        np.testing.assert_array_equal(read.rewards[rows], np.float32(episode.rewards))
        np.testing.assert_array_equal(read.terminals[rows], episode.terminations)


@pytest.mark.parametrize(
    ("dataset", "recorded", "about", "name", "env_id"),
    [
        ("mujoco/walker2d/expert-v0", "Walker2d-v5", None, "walker2d-expert-v0", "Walker2d-v5"),
        ("mine/cheetah", "HalfCheetah-v4", None, "halfcheetah-cheetah", "HalfCheetah-v4"),
        ("D4RL/pen/human-v2", "AdroitHandPen-v1", None, "pen-human-v2", "mtm_jax/AdroitPen"),
        ("D4RL/door/x", "AdroitHandDoor-v1", "door-human", "door-human", "mtm_jax/AdroitDoor"),
        ("D4RL/pen/x", "AdroitHandPen-v1", "pen_dense-x", "pen_dense-x", "AdroitHandPen-v1"),
    ],
)
def test_the_environment_is_ours_that_reads_the_recorded_one(
    dataset, recorded, about, name, env_id
):
    metadata = {"env_spec": json.dumps({"id": recorded})}
    info = minari_metadata.describe("x", metadata, about, dataset, "minari", [])
    assert info.name == name
    assert info.env_id.startswith(env_id)


def test_trailing_axes_of_length_1_are_dropped(written):
    with edited(written) as file:
        for k in range(3):
            for key in ("rewards", "terminations", "truncations"):
                replace(file, f"episode_{k}/{key}", file[f"episode_{k}/{key}"][()][:, None])
    assert_same_data(minari.read(written), make())


def test_rewards_are_looked_at_before_they_are_rounded(written):
    with edited(written) as file:
        for k, n in enumerate((4, 3, 5)):
            replace(file, f"episode_{k}/rewards", np.full(n, 1e-60))
    with pytest.raises(UserError, match="largest reward is 1e-60, too small for float32"):
        minari.read(written)


def test_actions_beyond_the_bounds_are_refused_unless_they_may_be_clipped(written):
    with edited(written) as file:
        for k, n in enumerate((4, 3, 5)):
            replace(file, f"episode_{k}/actions", np.full((n, 3), 2.5))
    with pytest.raises(
        UserError, match="100% of the action values lie beyond the bounds of Hopper"
    ):
        minari.read(written)
    assert (minari.read(written, clip_actions=True).actions == 1.0).all()
