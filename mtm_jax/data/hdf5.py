"""Opens HDF5 files and reads arrays of numbers from them."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator

import h5py
import numpy as np

from mtm_jax.errors import UserError


@contextlib.contextmanager
def opened(path: str | os.PathLike) -> Iterator[h5py.File]:
    """Open a file to read.

    Raises:
        UserError: it is missing, or HDF5 finds something wrong with it while it is open.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"there is no file {path}; check the path")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError) as error:
        raise UserError(
            f"file {path} cannot be read as HDF5 ({str(error).splitlines()[0]}); it "
            "is damaged, incomplete or of another format, so fetch it again"
        ) from error


def dataset(what: str, group: h5py.Group, key: str) -> h5py.Dataset:
    """Find an array in a group that has something under `key`.

    Raises:
        UserError: it is not an array, or not of numbers.
    """
    stored = group[key]
    if not isinstance(stored, h5py.Dataset):
        raise UserError(f"{what}: {key} is a group, expected an array, one row per step")
    if stored.dtype.kind not in "fiub" or stored.shape is None:
        raise UserError(f"{what}: {key} has type {stored.dtype}, expected numbers; convert it")
    return stored


def load(stored: h5py.Dataset, rows: int | tuple = ()) -> np.ndarray:
    """Read an array, or one row; floats become float32 on the way, without another copy."""
    return (stored.astype(np.float32) if stored.dtype.kind == "f" else stored)[rows]
