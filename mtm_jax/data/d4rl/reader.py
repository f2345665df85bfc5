"""Reads HDF5 files in D4RL's layout: flat arrays in which `terminals | timeouts` end episodes."""

from __future__ import annotations

import logging
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from mtm_jax.data import custom, endings, episodes, hdf5
from mtm_jax.data import info as data_info
from mtm_jax.data.d4rl import attributes
from mtm_jax.data.recorded import actions, environment, settings
from mtm_jax.envs import registry
from mtm_jax.errors import UserError
from mtm_jax.types import DataInfo, Trajectories

_LOG = logging.getLogger("mtm_jax")
_REQUIRED = ("observations", "actions", "rewards")
_USED = (*_REQUIRED, "next_observations", *endings.NAMES)


def read(
    path: str | os.PathLike,
    about: DataInfo | str | None = None,
    source: str | None = None,
    clip_actions: bool = False,
) -> Trajectories:
    """Read one file; for where its episodes end, see `endings.find`.

    It is evaluated in the version that its name or its attribute `env_id` says, by default in the
    one that D4RL's numbers refer to (-v4). A step that nothing ends at the end of the file closes
    an episode that was cut: it is kept, and is not terminal.

    Args:
        path: the file.
        about: a DataInfo, or a name like "hopper-medium" that starts with the environment, or
            with "custom" for one without a simulator; by default the file's name.
        source: what `info.source` says; by default the path.
        clip_actions: see `validation.check`.

    Returns:
        Checked trajectories; `final_observations` is NaN where the file does not tell.

    Raises:
        UserError: the file is missing, damaged or not in this layout, its environment is unknown
            or not the named one, its dimensions are not the environment's, or nothing in it ends
            an episode.
    """
    path = pathlib.Path(path).expanduser()
    what, source = f"file {path}", str(path) if source is None else source
    with hdf5.opened(path) as file:
        bounds = None
        if isinstance(about, DataInfo):
            name, known = about.name, about
        else:
            name, given = path.stem if about is None else about, about is not None
            stored = attributes.read(what, file)
            known, notes = _describe(what, stored, name, given, source)
            if known is not None and known.env_id:
                given_bounds = attributes.bounds(file)
                bounds = actions.rescaled_from(what, stored, given_bounds, known, notes)
            for note in notes:
                _LOG.warning("%s: %s", what, note)
        arrays = _find(what, file)

        def describe(taken: np.ndarray, lengths: np.ndarray) -> DataInfo:
            return known or custom.describe(what, name, source, taken, lengths)

        limit = None if known is None else known.max_episode_steps
        return episodes.make(what, arrays, describe, limit, clip_actions, bounds)


def _describe(
    what: str, stored: Mapping[str, Any], name: str, given: bool, source: str
) -> tuple[DataInfo | None, list[str]]:
    """Say what is known before the arrays are read, and what is not as recorded.

    It is None of an environment that nobody knows.
    """
    notes: list[str] = []
    if custom.is_one(name):
        return None, notes
    if "id" in stored:
        told = name if given or data_info.find_env(name) else None
        spec, env_id = environment.choose_env(what, str(stored["id"]), told, _d4rl_id, notes, given)
    else:
        spec = data_info.env_of(what, name)
        env_id = data_info.asked_id(name, given) or spec.d4rl_id
    info = data_info.of_env(spec, env_id, data_info.name_in(spec, name), source)
    return (settings.agree(what, stored, info, notes) if env_id else info), notes


def _d4rl_id(spec: registry.EnvSpec) -> str:
    return spec.d4rl_id


def _find(what: str, file: h5py.File) -> dict[str, h5py.Dataset]:
    missing = [key for key in _REQUIRED if key not in file]
    if missing:
        raise UserError(
            f"{what} lacks {', '.join(missing)} (it has {', '.join(file) or 'nothing'}); "
            f"D4RL's layout needs {', '.join(_REQUIRED)} and {' or '.join(endings.NAMES)}"
        )
    others: list[str] = []
    file.visit(lambda name: None if name in _USED else others.append(name))
    if not set(endings.NAMES) & set(file):
        raise UserError(endings.missing(what, others))
    endings.warn_alike(what, others)
    return {key: hdf5.dataset(what, file, key) for key in _USED if key in file}
