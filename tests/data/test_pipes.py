"""A named pipe in place of a file is refused; whoever opened one would wait for ever."""

import os
import threading

import h5py
import numpy as np
import pytest

from mtm_jax.data import sources
from mtm_jax.errors import UserError

PATIENCE = 60  # seconds; a refusal takes none


def refusal(name, source):
    """What a source is refused with; the thread that waits for a pipe is given up."""
    said = []

    def read():
        try:
            sources.load(name, str(source), progress=False)
        except UserError as error:
            said.append(str(error))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive(), "it waits for the pipe"
    return said[0]


@pytest.mark.parametrize(
    "file", ["x.hdf5", "x.npz", "walker_run.zip", "x", "walker_run/episode_000000_3.npz"]
)
def test_a_pipe_as_a_source_is_refused(tmp_path, file):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    os.mkfifo(path)
    source = path.parent if "/" in file else path
    name = "walker_run" if "walker_run" in file else "hopper"
    assert f"{path} is a named pipe, not a regular file; copy" in refusal(name, source)


@pytest.mark.parametrize("link", ["rewards", "observations", "mask", "data", "infos/x"])
def test_a_pipe_behind_an_external_link_is_refused(tmp_path, link):
    os.mkfifo(tmp_path / "pipe")
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        for key, shape in {"observations": (9, 11), "actions": (9, 3), "terminals": (9,)}.items():
            if key != link:
                file[key] = np.zeros(shape)
        file[link] = h5py.ExternalLink(str(tmp_path / "pipe"), "/x")
    assert f"{link} is stored in another file; only" in refusal("hopper", tmp_path / "x.hdf5")


@pytest.mark.parametrize("file", ["main_data.hdf5", "metadata.json"])
def test_a_pipe_in_a_minari_folder_is_refused(tmp_path, file):
    data = tmp_path / "x/data"
    data.mkdir(parents=True)
    if file != "metadata.json":
        (data / "metadata.json").write_text("{}")
    os.mkfifo(data / file)
    said = refusal("hopper", tmp_path / "x")
    assert "is a named pipe" in said or "holds no Minari data set" in said


def test_a_folder_in_place_of_a_file_is_refused(tmp_path):
    (tmp_path / "x/data/main_data.hdf5").mkdir(parents=True)
    (tmp_path / "x/data/metadata.json").write_text("{}")
    assert "main_data.hdf5 is a folder, not a regular file" in refusal("hopper", tmp_path / "x")
