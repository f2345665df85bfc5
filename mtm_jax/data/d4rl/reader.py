"""Reads HDF5 files in D4RL's layout: flat arrays in which `terminals | timeouts` end episodes."""

from __future__ import annotations

import os
import pathlib

import h5py
import numpy as np

from mtm_jax.data import episodes, hdf5, validation
from mtm_jax.data import info as data_info
from mtm_jax.errors import UserError
from mtm_jax.types import DataInfo, Trajectories

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
        about: a DataInfo, or a name like "hopper-medium" that starts with the environment, or
            with "custom" for one without a simulator; by default the file's name.
        source: what `info.source` says; by default the path.

    Returns:
        Checked trajectories; `final_observations` is NaN where the file does not tell.

    Raises:
        UserError: the file is missing, damaged or not in this layout, its environment is unknown,
            its dimensions are not the environment's, or nothing in it ends an episode.
    """
    path = pathlib.Path(path).expanduser()
    what, source = f"file {path}", str(path) if source is None else source
    name = path.stem if about is None else about
    about = _describe(what, name, source)
    limit = None if about is None else about.max_episode_steps
    with hdf5.opened(path) as file:
        stored = _find(what, file)
        following = stored.pop("next_observations", None)
        arrays = {key: hdf5.load(value) for key, value in stored.items()}
        ends = _ends(what, arrays, following, limit)
        dims = arrays["observations"].shape[1]
        finals = episodes.final_observations(following, ends, dims)
    lengths = np.diff(np.flatnonzero(ends), prepend=-1)
    if about is None:
        about = episodes.describe(what, name, source, arrays["actions"], lengths)
    arrays.pop("timeouts", None)
    return validation.check(
        Trajectories(**arrays, lengths=lengths, final_observations=finals, info=about)
    )


def _describe(what: str, about: DataInfo | str, source: str) -> DataInfo | None:
    """What is known before the file is read; None of an environment that nobody knows."""
    if isinstance(about, DataInfo):
        return about
    if episodes.is_custom(about):
        return None
    spec = data_info.env_of(what, about)
    return data_info.of_env(spec, spec.d4rl_id, about, source)


def _find(what: str, file: h5py.File) -> dict[str, h5py.Dataset]:
    missing = [key for key in _REQUIRED if key not in file]
    if missing:
        raise UserError(
            f"{what} lacks {', '.join(missing)} (it has {', '.join(file) or 'nothing'}); "
            f"D4RL's layout needs {', '.join(_REQUIRED)}"
        )
    keys = [key for key in (*_REQUIRED, *_OPTIONAL) if key in file]
    stored = {key: hdf5.dataset(what, file, key) for key in keys}
    episodes.check_rows(what, stored)
    return stored


def _ends(
    what: str, arrays: dict[str, np.ndarray], following: h5py.Dataset | None, limit: int | None
) -> np.ndarray:
    terminals = episodes.flags(what, "terminals", arrays["terminals"])
    cuts = arrays.get("timeouts")
    if cuts is not None:
        cuts = episodes.flags(what, "timeouts", cuts)
    return episodes.ends(what, terminals, cuts, arrays["observations"], following, limit)
