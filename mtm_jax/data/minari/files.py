"""Reads the files of one Minari data set, with every episode straight into its place."""

from __future__ import annotations

import logging
import pathlib
import re
from collections.abc import Mapping

import h5py
import numpy as np

from mtm_jax.data import episodes, hdf5, paths, validation
from mtm_jax.data.minari import metadata as minari_metadata
from mtm_jax.errors import UserError
from mtm_jax.io import cache
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
    if not path.exists():
        raise UserError(
            f"Minari data set {folder} lacks {path.name}; remove that folder and download it again"
        )
    paths.require_file(path)
    if "sha256" in metadata and metadata["sha256"] != cache.sha256(path):
        raise UserError(f"file {path} is damaged: its checksum differs; remove {folder}")
    return path


def _read(what: str, file: h5py.h5f.FileID) -> dict[str, np.ndarray]:
    """Read all episodes in the order of their numbers; HDF5 converts to float32 on the way."""
    names = _episode_names(what, file)
    counts = [_size(what, file, name, b"rewards", 1) for name in names]
    steps = sum(counts)
    dims = [_size(what, file, names[0], key, 2) for key in (b"observations", b"actions")]
    hdf5.check_size(what, file, (steps + len(names)) * (sum(dims) + 2) * 4)
    lengths = np.array(counts)
    stops = np.cumsum(lengths)
    rewards, terminals = _empty(what, steps), _empty(what, steps)
    actions = _empty(what, steps, dims[1])
    # One row more: an episode's last observation lies where the next one begins, and moves.
    observations = _empty(what, steps + 1, dims[0])
    finals = _empty(what, len(names), dims[0])
    for k, (name, start, stop) in enumerate(zip(names, stops - lengths, stops, strict=True)):
        _fill(what, file, name, b"rewards", rewards[start:stop])
        _fill(what, file, name, b"terminations", terminals[start:stop])
        _fill(what, file, name, b"actions", actions[start:stop])
        _fill(what, file, name, b"observations", observations[start : stop + 1])
        finals[k] = observations[stop]
    return {
        "observations": observations[:-1],
        "actions": actions,
        "rewards": rewards,
        "terminals": terminals,
        "lengths": lengths,
        "final_observations": finals,
    }


def _episode_names(what: str, file: h5py.h5f.FileID) -> list[bytes]:
    found = [match for match in map(_EPISODE.fullmatch, h5py.h5g.open(file, b"/")) if match]
    if not found:
        raise UserError(f"{what} holds no episodes; download it again")
    return [match[0] for match in sorted(found, key=lambda match: (int(match[1]), match[0]))]


def _size(what: str, file: h5py.h5f.FileID, name: bytes, key: bytes, rank: int) -> int:
    """The last dimension of an array of `rank` dimensions."""
    shape = _open(what, file, name, key).shape
    if shape is None or len(shape) != rank:
        raise UserError(
            f"{what}: {key.decode()} of {name.decode()} have shape {shape}, expected "
            f"{rank} dimension(s); give one flat row per step"
        )
    return int(shape[-1])


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
