"""Reads HDF5 files in D4RL's layout: flat arrays in which `terminals | timeouts` end episodes."""

from __future__ import annotations

import contextlib
import logging
import os
import pathlib
from collections.abc import Iterator

import h5py
import numpy as np

from mtm_jax.data import info as data_info
from mtm_jax.data import validation
from mtm_jax.errors import UserError
from mtm_jax.types import DataInfo, Trajectories

_LOG = logging.getLogger("mtm_jax")
_REQUIRED = ("observations", "actions", "rewards", "terminals")
_OPTIONAL = ("timeouts", "next_observations")


def read(
    path: str | os.PathLike, about: DataInfo | str | None = None, source: str | None = None
) -> Trajectories:
    """Read one file; it is evaluated in the version that D4RL's numbers refer to (-v4).

    A step that neither ends nor times out at the end of the file closes an episode that was cut:
    it is kept, and is not terminal. Where the file has no `timeouts`, episodes are also cut where
    `next_observations` and the following observation differ, and at the time limit.

    Args:
        path: the file.
        about: a DataInfo, or a name like "hopper-medium" that starts with the environment;
            by default the file's name.
        source: what `info.source` says; by default the path.

    Returns:
        Checked trajectories; `final_observations` is NaN where the file does not tell.

    Raises:
        UserError: the file is missing, damaged or not in this layout, its environment is unknown,
            its dimensions are not the environment's, or nothing in it ends an episode.
    """
    path = pathlib.Path(path).expanduser()
    about = _describe(path, about, source)
    with _opened(path) as file:
        arrays = _load(path, file)
    _check_rows(path, arrays)
    ends = _episode_ends(path, arrays, about.max_episode_steps)
    lengths = np.diff(np.flatnonzero(ends), prepend=-1)
    trajectories = Trajectories(
        observations=arrays["observations"],
        actions=arrays["actions"],
        rewards=arrays["rewards"],
        terminals=arrays["terminals"],
        lengths=lengths,
        final_observations=_final_observations(arrays, ends),
        info=about,
    )
    return validation.check(trajectories)


def _describe(path: pathlib.Path, about: DataInfo | str | None, source: str | None) -> DataInfo:
    if isinstance(about, DataInfo):
        return about
    name = path.stem if about is None else about
    spec = data_info.env_of(f"file {path}", name)
    return data_info.of_env(spec, spec.d4rl_id, name, str(path) if source is None else source)


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[h5py.File]:
    """Open a file; whatever HDF5 finds wrong with it while it is open becomes a UserError."""
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


def _load(path: pathlib.Path, file: h5py.File) -> dict[str, np.ndarray]:
    missing = [key for key in _REQUIRED if key not in file]
    if missing:
        raise UserError(
            f"file {path} lacks {', '.join(missing)} (it has {', '.join(file) or 'nothing'}); "
            f"D4RL's layout needs {', '.join(_REQUIRED)}"
        )
    keys = [key for key in (*_REQUIRED, *_OPTIONAL) if key in file]
    groups = [key for key in keys if not isinstance(file[key], h5py.Dataset)]
    if groups:
        raise UserError(f"file {path}: {groups[0]} is a group, expected an array, one row per step")
    return {key: file[key][()] for key in keys}


def _check_rows(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    """Refuse what would break before `validation.check` sees it."""
    shape = np.shape(arrays["observations"])
    for key, array in arrays.items():
        if np.shape(array)[:1] != shape[:1] or not shape or shape[0] == 0:
            raise UserError(
                f"file {path}: {key} has shape {list(np.shape(array))} and observations has shape "
                f"{list(shape)}; every array needs one row per step, and at least one"
            )
    for key in {"terminals", "timeouts"} & arrays.keys():
        if arrays[key].ndim != 1 or arrays[key].dtype.kind not in "fiub":
            raise UserError(
                f"file {path}: {key} is {arrays[key].dtype} of shape {list(arrays[key].shape)}, "
                "expected one boolean per step"
            )
    following = arrays.get("next_observations", arrays["observations"])
    if following.shape != shape or following.dtype.kind not in "fiub":
        raise UserError(
            f"file {path}: next_observations is {following.dtype} of shape "
            f"{list(following.shape)}, expected numbers of the shape {list(shape)} of observations"
        )


def _episode_ends(path: pathlib.Path, arrays: dict[str, np.ndarray], limit: int) -> np.ndarray:
    """Mark the last step of every episode, [N] bool; the file's last step is always marked."""
    ends = arrays["terminals"].astype(bool)
    if "timeouts" in arrays:
        ends = ends | arrays["timeouts"].astype(bool)
    elif "next_observations" in arrays:
        ends = ends | _jumps(arrays)
    if not ends.any() and len(ends) > limit:
        raise UserError(
            f"file {path}: neither terminals nor timeouts is ever set in {len(ends)} steps, more "
            f"than the limit of {limit} steps; add timeouts that say where its episodes end"
        )
    if not ends[-1]:
        _LOG.info("file %s: the last episode is cut; it is kept as a non-terminal one", path)
    ends[-1] = True
    return ends if "timeouts" in arrays else _with_time_limit(ends, limit)


def _jumps(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Mark steps whose successor is not the next row's observation, [N] bool."""
    same = np.isclose(
        *(arrays["next_observations"][:-1], arrays["observations"][1:]),
        rtol=1e-5,
        atol=1e-6,
        equal_nan=True,
    )
    return np.append(~same.all(axis=-1), False)


def _with_time_limit(ends: np.ndarray, limit: int) -> np.ndarray:
    """Mark also every `limit`-th step of an episode."""
    rows = np.arange(len(ends))
    previous_end = np.maximum.accumulate(np.where(ends, rows, -1))
    start = np.append(0, previous_end[:-1] + 1)  # [N] first row of each step's episode
    return ends | ((rows - start + 1) % limit == 0)


def _final_observations(arrays: dict[str, np.ndarray], ends: np.ndarray) -> np.ndarray:
    if "next_observations" in arrays:
        return arrays["next_observations"][ends]
    return np.full((int(ends.sum()), *arrays["observations"].shape[1:]), np.nan, np.float32)
