"""Goals in files: arrays of numbers, npz."""

from __future__ import annotations

import os
import pathlib

import numpy as np

from mtm_jax.data import archives
from mtm_jax.envs.goals import waypoints
from mtm_jax.errors import UserError

_KEYS = ("states", "steps", "given")


def load(path: str | os.PathLike, env: str = "") -> waypoints.Goals:
    """Read goals from an npz file with states [W, S] and, if it has them, steps and given.

    Args:
        path: the file; `save` writes one.
        env: name of the environment that they are for.

    Raises:
        UserError: the file cannot be read, has no states, or `waypoints.make` refuses them.
    """
    path = pathlib.Path(path)
    with archives.open_file(path) as file:
        if not os.fstat(file.fileno()).st_size:
            raise UserError(f"{path} is empty; give an npz file with states [W, S]")
        arrays, others = archives.load_npz(str(path), file, _KEYS)
    if "states" not in arrays:
        there = ", ".join([*arrays, *others]) or "nothing"
        raise UserError(f"{path} has no goals: it holds {there}; give states [W, S]")
    try:
        return waypoints.make(arrays["states"], arrays.get("steps"), arrays.get("given"), env)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def save(goals: waypoints.Goals, path: str | os.PathLike) -> None:
    """Write goals to a file that `load` reads."""
    np.savez(path, **{key: getattr(goals, key) for key in _KEYS})
