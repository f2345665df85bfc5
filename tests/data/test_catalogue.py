"""The catalogue finds what is here by names, sizes and metadata alone."""

import json

import h5py
import numpy as np
import pytest

from mtm_jax.data import catalogue
from mtm_jax.data.builtin import behaviours
from mtm_jax.data.minari import writer as minari_writer
from mtm_jax.envs import registry
from mtm_jax.errors import UserError
from mtm_jax.types import DataInfo, Trajectories

BUILTIN = [
    f"{env}-{level}"
    for env in ("hopper", "walker2d", "halfcheetah")
    for level in ("medium", "medium-replay", "medium-expert", "expert")
]


@pytest.fixture(autouse=True)
def home(empty_home):
    return empty_home


def make(env_id="Hopper-v5"):
    return Trajectories(
        observations=np.zeros((5, 11), np.float32),
        actions=np.zeros((5, 3), np.float32),
        rewards=np.zeros(5, np.float32),
        terminals=np.zeros(5, bool),
        lengths=np.array([2, 3]),
        final_observations=np.zeros((2, 11), np.float32),
        info=DataInfo("x", "a test", env_id, 1000, (-1.0,) * 3, (1.0,) * 3),
    )


def found(source, **wanted):
    """The entries of a source with these values."""
    return [
        entry
        for entry in catalogue.entries(source)
        if all(getattr(entry, key) == value for key, value in wanted.items())
    ]


def test_everything_known_is_listed_where_nothing_is_here():
    entries = catalogue.entries()
    assert {entry.path for entry in entries} == {None}
    assert [e.name for e in entries if e.source == "builtin"][:12] == BUILTIN
    assert {e.name for e in entries if e.source == "d4rl"} >= {f"d4rl:{n}" for n in BUILTIN}
    ids = {e.name.removeprefix("minari:") for e in entries if e.source == "minari"}
    assert {"mujoco/walker2d/simple-v0", "D4RL/pen/human-v2", "D4RL/door/expert-v2"} <= ids
    assert len({entry.name for entry in entries}) == len(entries)


def test_every_builtin_name_of_the_registry_is_listed_in_the_size_of_d4rl():
    for entry in catalogue.entries("builtin"):
        spec, level = registry.parse_name(entry.name)
        assert (entry.steps, entry.env_id) == (behaviours.STEPS[level], spec.builtin_id)
        assert entry.megabytes > entry.steps * 4 * spec.obs_dim / 1e6
    assert catalogue.builtin_names()[:12] == BUILTIN


@pytest.mark.parametrize(("steps", "seed"), [(200, 0), (1_000_000, 3)])
def test_collected_data_of_another_size_or_seed_have_their_own_row(home, steps, seed):
    folder = minari_writer.write(
        make(), behaviours.dataset_id("hopper-medium", steps, seed), home / "cache/minari"
    )
    rows = found("builtin", name="hopper-medium")
    assert [(row.steps, row.seed, row.path) for row in rows] == [
        (1_000_000, 0, None),
        (steps, seed, folder),
    ]
    assert folder == behaviours.folder("hopper-medium", steps, seed)
    size = sum(f.stat().st_size for f in (folder / "data").iterdir())
    assert rows[1].megabytes == pytest.approx(size / 1e6)
    assert not found("minari", path=folder)


def test_a_d4rl_file_is_found_where_it_was_placed(home, monkeypatch):
    monkeypatch.setenv("D4RL_DATASET_DIR", str(home / "chosen"))
    path = home / "chosen" / "walker2d_medium_replay-v2.hdf5"
    path.parent.mkdir()
    path.write_bytes(bytes(2_000_000))
    (row,) = found("d4rl", path=path)
    assert (row.name, row.env_id) == ("d4rl:walker2d-medium-replay", "Walker2d-v4")
    assert (row.megabytes, row.steps) == (2.0, None)


def test_minari_data_are_found_with_what_their_metadata_say(home, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(home / "own"))
    known = minari_writer.write(make(), "mujoco/hopper/medium-v0", home / "own")
    other = minari_writer.write(make("Hopper-v4"), "mine/x/test-v3", home / "cache/minari")
    (row,) = found("minari", path=known)
    assert (row.name, row.env_id, row.steps) == (
        *("minari:mujoco/hopper/medium-v0", "Hopper-v5", 5),
    )
    (row,) = found("minari", path=other)
    assert (row.name, row.env_id, row.steps) == ("minari:mine/x/test-v3", "Hopper-v4", 5)


def test_damaged_foreign_and_unfinished_folders_do_no_harm(home):
    root = home / "home/.minari/datasets"
    folders = [root / name for name in ("damaged-v0", "foreign-v0", ".staged-x/half-v0", "empty")]
    contents = ("{", json.dumps({"env_spec": json.dumps({"id": "Evil-v0"})}), "{}", None)
    for folder, content in zip(folders, contents, strict=True):
        (folder / "data").mkdir(parents=True)
        if content is not None:
            (folder / "data" / "metadata.json").write_text(content)
    here = [entry for entry in catalogue.entries("minari") if entry.path]
    assert [entry.path for entry in here] == folders[:2]
    assert {(entry.env_id, entry.steps) for entry in here} == {("", None)}


def test_no_data_are_read(home, monkeypatch):
    minari_writer.write(make(), "mine/hopper-v0", home / "cache/minari")

    def refuse(*_, **__):
        raise AssertionError("no file of data may be opened here")

    monkeypatch.setattr(h5py, "File", refuse)
    assert found("minari", name="minari:mine/hopper-v0")


def test_an_unknown_source_is_refused():
    with pytest.raises(UserError, match="unknown source 'd4lr'; choose one of builtin, d4rl, min"):
        catalogue.entries("d4lr")
