import concurrent.futures
import inspect
import json
import pathlib
import shutil
import sys
import threading
import types

import numpy as np
import pytest
from minari.storage import remotes

from mtm_jax.data.minari import download as minari_download
from mtm_jax.data.minari import reader as minari
from mtm_jax.errors import UserError
from mtm_jax.types import DataInfo, Trajectories

ID = "mujoco/hopper/medium-v0"


def make():
    return Trajectories(
        observations=np.random.default_rng(0).normal(size=(7, 11)).astype(np.float32),
        actions=np.zeros((7, 3), np.float32),
        rewards=np.arange(7, dtype=np.float32),
        terminals=np.zeros(7, bool),
        lengths=np.array([4, 3]),
        final_observations=np.zeros((2, 11), np.float32),
        info=DataInfo("x", "a test", "Hopper-v5", 1000, (-1.0,) * 3, (1.0,) * 3),
    )


class Remote:
    """Minari's interface of a remote, over a local folder.

    Like the real one it skips what is there already and works in hidden files.
    """

    def __init__(self, root):
        self.root, self.asked, self.sent = root, [], []
        self.fail_after = None  # files until `error` is raised
        self.error = ConnectionError("the line is dead")

    def get_dataset_metadata(self, dataset_id):
        self.asked.append(dataset_id)
        return json.loads((self.root / dataset_id / "data/metadata.json").read_text())

    def download_dataset(self, dataset_id, path):
        work = path / dataset_id.split("/")[0] / ".cache"
        work.mkdir(parents=True, exist_ok=True)
        for k, source in enumerate(
            sorted((self.root / dataset_id / "data").iterdir(), reverse=True)
        ):
            if k == self.fail_after:
                (work / f"{source.name}.incomplete").write_bytes(b"half")
                raise self.error
            target = path / source.relative_to(self.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                shutil.copyfile(source, target)
                self.sent.append(source.name)


@pytest.fixture
def remote(tmp_path, monkeypatch):
    """A remote with one data set, in place of the network."""
    minari.write(make(), ID, tmp_path / "remote")
    remote = Remote(tmp_path / "remote")
    monkeypatch.setitem(remotes._registry, "fake", lambda: lambda name, token: remote)
    monkeypatch.setenv("MINARI_REMOTE", "fake://somewhere")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MTM_JAX_DATA", str(tmp_path / "cache"))
    monkeypatch.delenv("MINARI_DATASETS_PATH", raising=False)
    return remote


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


def edit_metadata(remote, **changes):
    path = remote.root / ID / "data/metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


WHOLE = [f"{ID}/data/main_data.hdf5", f"{ID}/data/metadata.json"]


def test_a_downloaded_data_set_lies_alone_under_its_name(remote, root):
    assert minari_download.fetch(ID, root) == root / ID
    assert files(root) == WHOLE
    assert [p.name for p in (root / ID).parent.iterdir()] == ["medium-v0"]
    np.testing.assert_array_equal(minari.read(root / ID).observations, make().observations)


def test_what_is_here_is_not_asked_for_again(remote, root):
    minari_download.fetch(ID, root)
    minari_download.fetch(ID, root)
    minari.read(ID, root=root)
    assert remote.asked == [ID]
    assert len(remote.sent) == 2


def test_ids_that_are_not_here_are_downloaded_into_our_folder(remote, tmp_path):
    with pytest.raises(UserError, match="there is no Minari data set"):
        minari.read(ID, download=False)
    assert remote.asked == []
    read = minari.read(ID, "hopper-medium", progress=False)
    assert read.lengths.tolist() == [4, 3]
    assert (read.info.name, read.info.env_id) == ("hopper-medium", "Hopper-v5")
    assert files(tmp_path / "cache/minari") == WHOLE


@pytest.mark.parametrize("error", [ConnectionError("the line is dead"), KeyboardInterrupt()])
def test_a_download_that_breaks_leaves_no_data_set_and_is_continued(remote, root, error):
    remote.fail_after, remote.error = 1, error
    with pytest.raises((UserError, KeyboardInterrupt)):
        minari_download.fetch(ID, root)
    assert not (root / ID).exists()
    assert remote.sent == ["metadata.json"]
    remote.fail_after = None
    minari_download.fetch(ID, root)
    assert files(root) == WHOLE
    assert remote.sent == ["metadata.json", "main_data.hdf5"]


def test_a_broken_download_says_in_one_sentence_what_to_do(remote, root):
    remote.fail_after = 0
    with pytest.raises(UserError) as caught:
        minari_download.fetch(ID, root)
    reason = "ConnectionError: the line is dead"
    way_out = f"`minari download {ID}` and place its folder here: {root / ID}"
    assert str(caught.value) == (
        f"Minari data set '{ID}' could not be downloaded ({reason}); check the id and the network "
        f"and try again, or download it elsewhere with {way_out}"
    )


def test_an_unknown_id_is_named(remote, root):
    with pytest.raises(UserError, match="'mujoco/hopper/nosuch-v0' could not be downloaded"):
        minari_download.fetch("mujoco/hopper/nosuch-v0", root)
    assert files(root) == []
    with pytest.raises(UserError, match="is not the id of a Minari data set"):
        minari_download.fetch("../x", root)


def test_a_remote_that_stops_silently_has_not_delivered(remote, root):
    """As Hugging Face's library does where a folder of a broken download meets no network."""
    remote.fail_after, remote.error = 1, KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        minari_download.fetch(ID, root)
    remote.download_dataset = lambda dataset_id, path: None
    with pytest.raises(UserError, match=f"download of Minari data set '{ID}' is not complete"):
        minari_download.fetch(ID, root)
    del remote.download_dataset
    remote.fail_after = None
    minari_download.fetch(ID, root)
    assert remote.sent == ["metadata.json", "main_data.hdf5"]


def test_damaged_data_are_not_kept_and_are_downloaded_anew(remote, root):
    path = remote.root / ID / "data/main_data.hdf5"
    good = path.read_bytes()
    path.write_bytes(good[:-100])
    with pytest.raises(UserError, match=f"not kept: file {ID}/data/main_data.hdf5 is damaged"):
        minari_download.fetch(ID, root)
    assert files(root) == []
    path.write_bytes(good)
    minari_download.fetch(ID, root)
    assert files(root) == WHOLE


@pytest.mark.parametrize(
    ("changes", "about", "words"),
    [
        (
            {"env_spec": '{"id": "Ant-v5"}'},
            None,
            "'Ant-v5' is not allowed; .* Hopper-v5, Hopper-v4",
        ),
        ({}, "walker2d-medium", "recorded in Hopper-v5, which is not the walker2d"),
        ({"data_format": "arrow"}, None, "stored as 'arrow'"),
    ],
)
def test_what_would_be_refused_is_not_downloaded(remote, root, changes, about, words):
    edit_metadata(remote, **changes)
    with pytest.raises(UserError, match=words):
        minari_download.fetch(ID, root, about=about)
    assert (remote.sent, files(root)) == ([], [])


def test_an_environment_that_the_user_names_must_fit(remote, root):
    edit_metadata(remote, env_spec='{"id": "MyHopper-v0"}')
    with pytest.raises(
        UserError, match="not kept: .*actions has 3 dimensions but Walker2d-v5 has 6"
    ):
        minari.read(ID, "walker2d-mine", root=root)
    assert files(root) == []
    assert minari.read(ID, "hopper-mine", root=root).info.env_id == "Hopper-v5"


def test_metadata_run_nothing_and_fetch_nothing_else(remote, root, tmp_path, monkeypatch):
    mark = tmp_path / "mark"
    (tmp_path / "hostile_module.py").write_text(f"open({str(mark)!r}, 'w')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = json.dumps({"id": "Hopper-v5", "entry_point": "hostile_module:make"})
    edit_metadata(remote, env_spec=spec, eval_env_spec=spec, combined_datasets=["other/big-v0"])
    edit_metadata(remote, observation_space=None, action_space=None)
    with pytest.raises(UserError, match="with the code 'hostile_module:make' where Hopper-v5 is"):
        minari.read(ID, root=root)
    assert remote.asked == [ID] and files(root) == []
    assert minari.read(ID, make().info, root=root).info.env_id == "Hopper-v5"
    assert remote.asked == [ID, ID] and files(root) == WHOLE
    assert not mark.exists() and "hostile_module" not in sys.modules


def test_a_missing_extra_is_named(remote, root, monkeypatch):
    monkeypatch.delenv("MINARI_REMOTE")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.delitem(sys.modules, "minari.storage.remotes.huggingface", raising=False)
    with pytest.raises(UserError) as caught:
        minari_download.fetch(ID, root)
    assert "(huggingface_hub is not installed)" in str(caught.value)
    assert "run `pip install 'mtm_jax[minari]'`, or download it elsewhere" in str(caught.value)
    assert f"`minari download {ID}` and place its folder here: {root / ID}" in str(caught.value)


def test_a_folder_that_cannot_be_written_is_named(remote, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=f"cannot write to the data folder {tmp_path}/file"):
        minari_download.fetch(ID, tmp_path / "file")
    assert remote.asked == []


def test_a_foreign_folder_in_the_way_is_left_alone(remote, root):
    (root / ID).mkdir(parents=True)
    (root / ID / "notes").touch()
    with pytest.raises(UserError, match="is in the way and holds no data set"):
        minari_download.fetch(ID, root)
    assert (root / ID / "notes").exists()


def test_two_at_once_download_once(remote, root):
    both = threading.Barrier(2)

    def fetch(_):
        both.wait()
        return minari_download.fetch(ID, root, progress=False)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert list(pool.map(fetch, range(2))) == [root / ID] * 2
    assert remote.asked == [ID]


def test_progress_is_shown_where_it_is_wanted(remote, root, capsys):
    edit_metadata(remote, dataset_size=12.3)
    minari_download.fetch(ID, root / "quiet", progress=False)
    assert capsys.readouterr().out == ""
    minari_download.fetch(ID, root / "shown")
    assert "MB/s" in (out := capsys.readouterr().out) and f"{ID} 13/13, " in out


@pytest.mark.parametrize("size", [None, "1", 0, float("nan")])
def test_a_size_that_is_unknown_is_not_shown(remote, root, size, capsys):
    edit_metadata(remote, dataset_size=size)
    minari_download.fetch(ID, root)
    assert capsys.readouterr().out == ""


def test_progress_counts_what_has_arrived(tmp_path):
    (tmp_path / "a/.cache").mkdir(parents=True)
    (tmp_path / "a/.cache/x.incomplete").write_bytes(bytes(1_600_000))
    (tmp_path / "a/y").write_bytes(bytes(500_000))
    assert minari_download._megabytes(tmp_path) == 2


@pytest.mark.parametrize("before", [True, False])
def test_bars_of_hugging_face_are_silent_meanwhile(remote, root, monkeypatch, before):
    state = {"disabled": before}
    utils = types.SimpleNamespace(
        are_progress_bars_disabled=lambda: state["disabled"],
        disable_progress_bars=lambda: state.update(disabled=True),
        enable_progress_bars=lambda: state.update(disabled=False),
    )
    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(utils=utils))
    seen, download = [], remote.download_dataset
    remote.download_dataset = lambda *args: (seen.append(state["disabled"]), download(*args))
    minari_download.fetch(ID, root)
    assert (seen, state["disabled"]) == ([True], before)


def test_the_librarys_storages_take_what_they_are_given():
    """Its interface is not documented for others, so that a change of it must be noticed."""
    storage = remotes.CloudStorage
    assert list(inspect.signature(storage.get_dataset_metadata).parameters)[1:] == ["dataset_id"]
    assert list(inspect.signature(storage.download_dataset).parameters)[1:] == [
        "dataset_id",
        "path",
    ]
    assert {"hf", "gcp"} <= remotes._registry.keys()
    assert remotes.DEFAULT_REMOTE.startswith("hf://")
    assert pathlib.Path(inspect.getfile(storage)).name == "cloud_storage.py"
