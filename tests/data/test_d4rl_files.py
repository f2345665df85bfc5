import hashlib
import io
import json
import logging

import file_server
import h5py
import numpy as np
import pytest
from file_server import page, status

from mtm_jax.data.d4rl import files as d4rl_files
from mtm_jax.envs import registry
from mtm_jax.errors import UserError


def make(obs_dim=11, action_dim=3, rows=20, **changed):
    """A file in D4RL's layout."""
    arrays = {
        "observations": np.zeros((rows, obs_dim), np.float32),
        "actions": np.zeros((rows, action_dim), np.float32),
        "rewards": np.arange(rows, dtype=np.float32),
        "terminals": np.zeros(rows, bool),
    } | changed
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        for key, value in arrays.items():
            if value is not None:
                file[key] = value
    return memory.getvalue()


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(autouse=True)
def empty_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MTM_JAX_DATA", str(tmp_path / "cache"))
    for name in ("D4RL_DATASET_DIR", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def unpinned(monkeypatch):
    monkeypatch.setattr(d4rl_files, "PINNED", {})


@pytest.fixture
def server():
    with file_server.serving(make()) as made:
        yield made


@pytest.fixture
def cached(tmp_path):
    return tmp_path / "cache" / "d4rl"


def locate(server, name="hopper-medium-replay"):
    return d4rl_files.locate(name, progress=False, mirrors=[server.url])


def record(cached):
    return json.loads((cached / "sha256.json").read_text())


def test_every_file_has_a_name_a_checksum_and_places():
    names = []
    for env, family in d4rl_files.FAMILIES.items():
        assert all(m.startswith(("http://", "https://")) and m[-1] == "/" for m in family.mirrors)
        names += [d4rl_files._describe(f"{env}-{level}")[2] for level in family.levels]
    assert sorted(names) == sorted(d4rl_files.PINNED)
    assert all(len(bytes.fromhex(digest)) == 32 for digest in d4rl_files.PINNED.values())
    assert len(set(d4rl_files.PINNED.values())) == len(names) == 18


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("hopper-medium-replay", "hopper_medium_replay-v2.hdf5"),
        ("halfcheetah-medium-expert", "halfcheetah_medium_expert-v2.hdf5"),
        ("pen-human", "pen-human-v1.hdf5"),
        ("door_dense-expert", "door-expert-v1.hdf5"),
    ],
)
@pytest.mark.usefixtures("unpinned")
def test_a_name_leads_to_its_file(server, cached, name, file):
    spec, _ = registry.split_name(name)
    server.content = make(spec.obs_dim, spec.action_dim)
    assert locate(server, name) == cached / file
    assert [path for path, _ in server.seen] == [f"/{file}"]
    assert (cached / file).read_bytes() == server.content


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hopper-human", "choose one of hopper-medium, hopper-medium-replay, hopper-medium-expert"),
        ("hopper", "no D4RL file for 'hopper'; choose one of hopper-medium,"),
        ("pen_dense-medium", "choose one of pen_dense-human, pen_dense-cloned, pen_dense-expert"),
        ("walker_run-expert", "no D4RL files of walker_run, only of hopper, .*, pen, door"),
    ],
)
def test_a_name_without_a_file_is_refused(name, words):
    with pytest.raises(UserError, match=words):
        d4rl_files.locate(name)


@pytest.mark.usefixtures("unpinned")
def test_files_of_the_user_are_found_in_order_and_not_fetched(tmp_path, monkeypatch, server):
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "chosen"))
    assert d4rl_files.find("hopper-medium-replay") is None
    for place in ("cache/d4rl", "home/.d4rl/datasets", "chosen"):
        path = tmp_path / place / "hopper_medium_replay-v2.hdf5"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"anything")
        assert locate(server) == d4rl_files.find("hopper-medium-replay") == path
    assert server.seen == []


@pytest.mark.usefixtures("unpinned")
def test_a_download_goes_to_the_chosen_folder(tmp_path, monkeypatch, server, cached):
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "chosen"))
    path = locate(server)
    assert path == tmp_path / "chosen" / "hopper_medium_replay-v2.hdf5"
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert list(record(cached)) == [path.name]


@pytest.mark.usefixtures("unpinned")
def test_the_first_download_is_trusted_recorded_and_said(server, cached, caplog):
    cached.mkdir(parents=True)
    (cached / "sha256.json").write_text('{"other.hdf5": "abc"}')
    with caplog.at_level(logging.WARNING, "mtm_jax"):
        path = locate(server)
    digest = sha256(server.content)
    assert record(cached) == {"other.hdf5": "abc", path.name: digest}
    assert f"{digest} is trusted on first use" in caplog.text
    assert sorted(p.name for p in cached.iterdir()) == [path.name, "sha256.json"]


@pytest.mark.usefixtures("unpinned")
def test_another_file_than_the_trusted_one_is_refused(server, cached, caplog):
    path = locate(server)
    first = sha256(server.content)
    path.unlink()
    server.content = make(rows=21)
    with pytest.raises(UserError) as error:
        locate(server)
    text = str(error.value)
    assert f"its sha256 is {sha256(server.content)}, expected {first} trusted on first" in text
    assert str(cached / "sha256.json") in text and f"place the file here: {path}" in text
    assert not path.exists() and record(cached) == {path.name: first}


def test_a_published_checksum_goes_first(server, cached, monkeypatch, caplog):
    digest = sha256(server.content)
    monkeypatch.setattr(d4rl_files, "PINNED", {"hopper_medium_replay-v2.hdf5": digest})
    cached.mkdir(parents=True)
    (cached / "sha256.json").write_text('{"hopper_medium_replay-v2.hdf5": "abc"}')
    assert locate(server).read_bytes() == server.content
    assert "trusted" not in caplog.text


def test_a_download_with_another_checksum_than_the_published_one_is_refused(server, cached):
    expected = d4rl_files.PINNED["hopper_medium_replay-v2.hdf5"]
    with pytest.raises(UserError, match=f"is {sha256(server.content)}, expected {expected} of the"):
        locate(server)
    assert list(cached.iterdir()) == []


def test_a_file_of_the_user_with_another_checksum_is_refused(tmp_path, server):
    path = tmp_path / "home/.d4rl/datasets/hopper_medium_replay-v2.hdf5"
    path.parent.mkdir(parents=True)
    path.write_bytes(server.content)
    with pytest.raises(UserError) as error:
        locate(server)
    expected = d4rl_files.PINNED[path.name]
    assert f"file {path}: its sha256 is {sha256(server.content)}, expected {expected}" in str(
        error.value
    )
    assert "remove it to have it downloaded again, or give its path" in str(error.value)
    assert server.seen == []


@pytest.mark.parametrize("text", ["{damaged", "[]", '"abc"'])
@pytest.mark.usefixtures("unpinned")
def test_damaged_checksums_are_named_before_anything_is_fetched(server, cached, text):
    cached.mkdir(parents=True)
    (cached / "sha256.json").write_text(text)
    with pytest.raises(UserError, match=r"sha256.json .*repair"):
        locate(server)
    assert server.seen == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<html>", "it is not whole HDF5"),
        (make()[:-100], "it is not whole HDF5"),
        (make(17, 6), r"shapes \[\(20, 17\), \(20, 6\), .*expected \[\(20, 11\), \(20, 3\), "),
        (make(action_dim=4), r"shapes \[\(20, 11\), \(20, 4\), \(20,\), \(20,\)\], expected"),
        (make(terminals=np.zeros(19, bool)), r"\(20,\), \(19,\)\], expected"),
        (make(rewards=None), r"\(20, 3\), None, \(20,\)\], expected"),
        (make(observations=np.float32(1.0)), r"shapes \[\(\), .*expected \[\(1, 11\)"),
        (make(observations=h5py.Empty("f")), r"shapes \[None, .*expected \[\(1, 11\)"),
        (make(rows=0), r"shapes \[\(0, 11\), .*expected \[\(1, 11\)"),
    ],
)
@pytest.mark.usefixtures("unpinned")
def test_content_of_another_kind_is_refused(server, cached, content, words):
    server.content = content
    with pytest.raises(UserError, match=words):
        locate(server)
    assert list(cached.iterdir()) == []


@pytest.mark.usefixtures("unpinned")
def test_the_next_mirror_is_asked_where_one_gives_garbage(server):
    server.orders = [status(404), page("application/octet-stream")]
    mirrors = [f"{server.url}/{k}/" for k in "abc"]
    path = d4rl_files.locate("hopper-medium", progress=False, mirrors=mirrors)
    assert [p for p, _ in server.seen] == [f"/{k}/{path.name}" for k in "abc"]
    assert path.read_bytes() == server.content


def test_where_nothing_answers_the_place_of_the_file_is_named(cached, monkeypatch):
    family = d4rl_files.Family(("http://127.0.0.1:9/x/",), "{env}_{level}-v2.hdf5", ("medium",))
    monkeypatch.setitem(d4rl_files.FAMILIES, "hopper", family)
    with pytest.raises(UserError) as error:
        d4rl_files.locate("hopper-medium", progress=False)
    text = str(error.value)
    assert "http://127.0.0.1:9/x/hopper_medium-v2.hdf5 (" in text
    assert f"place the file here: {cached / 'hopper_medium-v2.hdf5'}" in text
    assert "set D4RL_DATASET_DIR to the folder that has it" in text


@pytest.mark.usefixtures("unpinned")
def test_a_checksum_that_cannot_be_recorded_is_one_sentence(server, cached):
    (cached / ".sha256.json.lock").mkdir(parents=True)
    with pytest.raises(UserError, match=r"cannot be recorded in .*sha256.json \(Is a directory\)"):
        locate(server)
