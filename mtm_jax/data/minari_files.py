"""Reads the files of one Minari data set, with every episode straight into its place."""

from __future__ import annotations

import logging
import pathlib
import re
from collections.abc import Mapping

import h5py
import numpy as np

from mtm_jax import cache
from mtm_jax.data import episodes, hdf5, minari_metadata, validation
from mtm_jax.errors import UserError
from mtm_jax.types import DataInfo, Trajectories

_LOG = logging.getLogger("mtm_jax")
_EPISODE = re.compile(rb"episode_(\d{1,18})")


def load(
    folder: pathlib.Path, about: DataInfo | str | None, name: str, source: str
) -> Trajectories:
    """Read and check one data set; for the arguments see `minari_metadata.describe`.

    Raises:
        UserError: it is damaged, of another kind, or its environment is refused.
    """
    what, metadata = f"Minari data set {folder}", minari_metadata.read(folder)
    minari_metadata.check_format(what, metadata)
    info = minari_metadata.describe(what, metadata, about, name, source)
    with hdf5.opened(_intact_file(folder, metadata)) as file:
        arrays = _read(what, file.id)
    _compare_totals(what, metadata, arrays)
    if info is None:
        bounds = minari_metadata.action_bounds(metadata)
        given = arrays["actions"], arrays["lengths"]
        info = episodes.describe(what, str(about), source, *given, bounds=bounds)
    return validation.check(Trajectories(**arrays, info=info))


def _intact_file(folder: pathlib.Path, metadata: Mapping) -> pathlib.Path:
    path = minari_metadata.data_folder(folder) / minari_metadata.FILE
    if not path.is_file():
        raise UserError(f"Minari data set {folder} lacks {path.name}; download it again")
    if "sha256" in metadata and metadata["sha256"] != cache.sha256(path):
        raise UserError(f"file {path} is damaged: its checksum differs; remove {folder}")
    return path


def _read(what: str, file: h5py.h5f.FileID) -> dict[str, np.ndarray]:
    """Read all episodes in the order of their numbers; HDF5 converts to float32 on the way."""
    names = _episode_names(what, file)
    rewards = [_rewards(what, file, name) for name in names]
    lengths = np.array([len(array) for array in rewards])
    stops = np.cumsum(lengths)
    steps = int(stops[-1])
    terminals = np.empty(steps, np.float32)
    actions = _empty(what, steps, _dims(what, file, names[0], b"actions"))
    # One row more: an episode's last observation lies where the next one begins, and moves.
    observations = _empty(what, steps + 1, _dims(what, file, names[0], b"observations"))
    finals = _empty(what, len(names), observations.shape[1])
    for k, (name, start, stop) in enumerate(zip(names, stops - lengths, stops, strict=True)):
        _fill(what, file, name, b"terminations", terminals[start:stop])
        _fill(what, file, name, b"actions", actions[start:stop])
        _fill(what, file, name, b"observations", observations[start : stop + 1])
        finals[k] = observations[stop]
    return {
        "observations": observations[:-1],
        "actions": actions,
        "rewards": np.concatenate(rewards),
        "terminals": terminals,
        "lengths": lengths,
        "final_observations": finals,
    }


def _episode_names(what: str, file: h5py.h5f.FileID) -> list[bytes]:
    found = [match for match in map(_EPISODE.fullmatch, h5py.h5g.open(file, b"/")) if match]
    if not found:
        raise UserError(f"{what} holds no episodes; download it again")
    return [match[0] for match in sorted(found, key=lambda match: (int(match[1]), match[0]))]


def _rewards(what: str, file: h5py.h5f.FileID, name: bytes) -> np.ndarray:
    stored = _open(what, file, name, b"rewards")
    array = _empty(what, *_shape(what, stored, name, b"rewards", 1))
    _copy(what, stored, name, b"rewards", array)
    return array


def _dims(what: str, file: h5py.h5f.FileID, name: bytes, key: bytes) -> int:
    return _shape(what, _open(what, file, name, key), name, key, 2)[1]


def _shape(what: str, stored: h5py.h5d.DatasetID, name: bytes, key: bytes, rank: int) -> tuple:
    shape = stored.shape
    if shape is None or len(shape) != rank:
        raise UserError(
            f"{what}: {key.decode()} of {name.decode()} have shape {shape}, expected "
            f"{rank} dimension(s); give one flat row per step"
        )
    return shape


def _fill(what: str, file: h5py.h5f.FileID, name: bytes, key: bytes, rows: np.ndarray) -> None:
    """Read an array into `rows`, which has the shape that it must have."""
    stored = _open(what, file, name, key)
    if stored.shape != rows.shape:
        raise UserError(
            f"{what}: {key.decode()} of {name.decode()} have shape {stored.shape}, expected "
            f"{rows.shape}; every array needs a row per reward, observations one more, and all "
            "episodes the same dimensions, so remove that episode"
        )
    _copy(what, stored, name, key, rows)


def _open(what: str, file: h5py.h5f.FileID, name: bytes, key: bytes) -> h5py.h5d.DatasetID:
    """Open an array; h5py's low level takes half the time for many short episodes."""
    try:
        return h5py.h5d.open(file, name + b"/" + key)
    except KeyError as error:
        raise UserError(
            f"{what}: {name.decode()} has no flat array of {key.decode()} ({error.args[0]}); "
            "parts of a Dict or Tuple space are not read, so choose another data set"
        ) from error


def _copy(what: str, stored: h5py.h5d.DatasetID, name: bytes, key: bytes, rows: np.ndarray) -> None:
    try:
        stored.read(h5py.h5s.ALL, h5py.h5s.ALL, rows, h5py.h5t.NATIVE_FLOAT)
    except (TypeError, OSError) as error:
        raise UserError(
            f"{what}: {key.decode()} of {name.decode()} cannot be read as numbers "
            f"({str(error).splitlines()[0]}); they are damaged or of another type"
        ) from error


def _empty(what: str, *shape: int) -> np.ndarray:
    try:
        return np.empty(shape, np.float32)
    except (MemoryError, ValueError) as error:
        raise UserError(
            f"{what} says that it has an array of shape {shape}, for which there is no memory; "
            "it is damaged, or too large for this machine"
        ) from error


def _compare_totals(what: str, metadata: Mapping, arrays: Mapping[str, np.ndarray]) -> None:
    for key, array in (("total_episodes", "lengths"), ("total_steps", "rewards")):
        stored, found = metadata.get(key), len(arrays[array])
        if isinstance(stored, int) and stored != found:
            _LOG.warning("%s: metadata say %s=%d; %d are there and read", what, key, stored, found)
