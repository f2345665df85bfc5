import h5py
import numpy as np
import pytest

from mtm_jax.data import hdf5
from mtm_jax.data.d4rl import reader as d4rl
from mtm_jax.errors import UserError


def make(folder, *leave_out, name="hopper.hdf5"):
    """20 steps of hopper in D4RL's layout."""
    path = folder / name
    arrays = {
        "observations": np.zeros((20, 11), np.float32),
        "actions": np.zeros((20, 3), np.float32),
        "rewards": np.arange(20, dtype=np.float32),
        "terminals": np.arange(20) == 19,
    }
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            if key not in leave_out:
                file[key] = array
    return path


@pytest.mark.parametrize("kind", ["link", "soft", "raw", "virtual"])
def test_arrays_in_another_file_are_not_read(tmp_path, kind):
    secret = make(tmp_path, name="secret.hdf5")
    path = make(tmp_path, "rewards")
    with h5py.File(path, "a") as file:
        if kind == "link":
            file["rewards"] = h5py.ExternalLink("secret.hdf5", "rewards")
        elif kind == "soft":
            file["other"] = h5py.ExternalLink("secret.hdf5", "/")
            file["rewards"] = h5py.SoftLink("other/rewards")
        elif kind == "raw":
            file.create_dataset("rewards", (20,), "f4", external=[(str(secret), 0, 80)])
        else:
            layout = h5py.VirtualLayout((20,), "f4")
            layout[:] = h5py.VirtualSource(str(secret), "rewards", (20,))
            file.create_virtual_dataset("rewards", layout)
    key = "other" if kind == "soft" else "rewards"
    with pytest.raises(UserError, match=f"hopper.hdf5: {key} is stored in another file; only"):
        d4rl.read(path)


def test_a_link_that_leaves_the_file_is_refused_wherever_it_is(tmp_path):
    path = make(tmp_path)
    with h5py.File(path, "a") as file:
        file["infos/a/b"] = h5py.ExternalLink("absent.hdf5", "/")
    with pytest.raises(UserError, match="hopper.hdf5: infos/a/b is stored in another file; only"):
        d4rl.read(path)


def test_links_within_the_file_are_followed(tmp_path):
    path = make(tmp_path)
    with h5py.File(path, "a") as file:
        file.move("rewards", "elsewhere/rewards")
        file["rewards"] = h5py.SoftLink("/elsewhere/rewards")
    assert d4rl.read(path).rewards.tolist() == list(range(20))


@pytest.mark.parametrize(
    ("rows", "chunks"), [(10**7, None), (10**13, None), (10**13, (1000,)), (2**62, (1000,))]
)
def test_sizes_that_the_file_cannot_hold_are_refused_before_reading(tmp_path, rows, chunks):
    path = make(tmp_path, "rewards")
    with h5py.File(path, "a") as file:
        file.create_dataset("rewards", (rows,), "f4", chunks=chunks)
    with hdf5.opened(path) as file:
        with pytest.raises(UserError, match=f"rewards declares {4 * rows} bytes"):
            hdf5.dataset("it", file, "rewards")


def test_what_gzip_packs_best_is_read(tmp_path):
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        zeros = np.zeros(4_000_000, np.float32)
        file.create_dataset("x", data=zeros, chunks=(1_000_000,), compression=9)
    with hdf5.opened(tmp_path / "x.hdf5") as file:
        assert hdf5.size(file["x"]) > 500 * file.id.get_filesize()
        assert len(hdf5.load(hdf5.dataset("it", file, "x"))) == 4_000_000


def test_types_that_numpy_does_not_know_are_refused(tmp_path):
    path = make(tmp_path, "rewards")
    with h5py.File(path, "a") as file:
        space = h5py.h5s.create_simple((20,))
        h5py.h5d.create(file.id, b"rewards", h5py.h5t.UNIX_D32LE, space)
    with pytest.raises(UserError, match="hopper.hdf5 cannot be read as HDF5 .*TypeTimeID"):
        d4rl.read(path)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(13, "denied"), r"may not be read \(permission\); change"),
        (BlockingIOError(11, "unable to lock file"), "is opened by another program; try again"),
        (MemoryError(), "more data than this machine has memory for"),
        (OSError(), "cannot be read as HDF5 .no reason given"),
    ],
)
def test_what_is_wrong_is_told_apart(tmp_path, monkeypatch, error, words):
    def refuse(*_):
        raise error

    monkeypatch.setattr(h5py, "File", refuse)
    (tmp_path / "x.hdf5").touch()
    with pytest.raises(UserError, match=f"x.hdf5 {words}" if words[0] != "m" else words):
        with hdf5.opened(tmp_path / "x.hdf5"):
            pass


@pytest.mark.parametrize("error", [ValueError, RuntimeError, KeyError, TypeError])
def test_whatever_hdf5_raises_of_an_open_file_is_a_refusal(tmp_path, error):
    """A damaged header shows up as one or another of these."""
    with (
        pytest.raises(UserError, match="cannot be read as HDF5 .*bad object header"),
        hdf5.opened(make(tmp_path)),
    ):
        raise error("bad object header version number")


def test_a_refusal_of_an_open_file_stays_as_it_is(tmp_path):
    with pytest.raises(UserError, match="^no rewards$"), hdf5.opened(make(tmp_path)):
        raise UserError("no rewards")
