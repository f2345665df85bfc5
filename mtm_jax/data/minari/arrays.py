"""Reads single arrays of a Minari file; HDF5 converts their numbers on the way.

h5py's low level takes half the time for many short episodes.
"""

from __future__ import annotations

import h5py
import numpy as np

from mtm_jax.data import hdf5
from mtm_jax.errors import UserError


def size(what: str, file: h5py.h5f.FileID, name: bytes, key: bytes, rank: int) -> int:
    """Return the last dimension of an array of `rank` dimensions, trailing ones of 1 aside.

    Raises:
        UserError: it is not there, or has other dimensions.
    """
    shape = _without_ones(_open(what, file, name, key).shape, rank)
    if shape is None or len(shape) != rank:
        raise UserError(
            f"{what}: {key.decode()} of {name.decode()} have shape {shape}, expected "
            f"{rank} dimension(s); give one flat row per step"
        )
    return int(shape[-1])


def fill(what: str, file: h5py.h5f.FileID, name: bytes, key: bytes, rows: np.ndarray) -> None:
    """Read an array into `rows`, which has the shape that it must have.

    Raises:
        UserError: it has another shape, or holds no numbers.
    """
    stored = _open(what, file, name, key)
    if _without_ones(stored.shape, rows.ndim) != rows.shape:
        raise UserError(
            f"{what}: {key.decode()} of {name.decode()} have shape {stored.shape}, expected "
            f"{rows.shape}; every array needs a row per reward, observations one more, and all "
            "episodes the same dimensions, so remove that episode"
        )
    _copy(what, stored, name, key, rows.reshape(stored.shape))


def _without_ones(shape: tuple[int, ...] | None, rank: int) -> tuple[int, ...] | None:
    while shape is not None and len(shape) > rank and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _open(what: str, file: h5py.h5f.FileID, name: bytes, key: bytes) -> h5py.h5d.DatasetID:
    try:
        stored = h5py.h5d.open(file, name + b"/" + key)
    except KeyError as error:
        raise UserError(
            f"{what}: {name.decode()} has no flat array of {key.decode()} ({error.args[0]}); "
            "parts of a Dict or Tuple space are not read, so choose another data set"
        ) from error
    layout = stored.get_create_plist()
    inside = layout.get_layout() != h5py.h5d.VIRTUAL and not layout.get_external_count()
    if not inside:
        raise UserError(hdf5.outside(what, f"{name.decode()}/{key.decode()}"))
    return stored


def _copy(what: str, stored: h5py.h5d.DatasetID, name: bytes, key: bytes, rows: np.ndarray) -> None:
    try:
        stored.read(h5py.h5s.ALL, h5py.h5s.ALL, rows, h5py.h5t.py_create(rows.dtype))
    except (TypeError, OSError) as error:
        raise UserError(
            f"{what}: {key.decode()} of {name.decode()} cannot be read as numbers "
            f"({str(error).splitlines()[0]}); they are damaged or of another type"
        ) from error


def empty(what: str, *shape: int, dtype: type = np.float32) -> np.ndarray:
    """Take memory for an array.

    Raises:
        UserError: there is not so much.
    """
    try:
        return np.empty(shape, dtype)
    except (MemoryError, ValueError) as error:
        raise UserError(
            f"{what} says that it has an array of shape {shape}, for which there is no memory; "
            "it is damaged, or too large for this machine"
        ) from error
