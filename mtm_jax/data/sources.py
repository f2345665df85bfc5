"""From a data set's name and source to checked trajectories."""

from __future__ import annotations

import logging
import os
import pathlib

from mtm_jax import cache
from mtm_jax.data import behaviours, d4rl, minari
from mtm_jax.data import info as data_info
from mtm_jax.envs import registry
from mtm_jax.errors import UserError
from mtm_jax.types import Trajectories

SOURCES = ("builtin", "d4rl", "minari")
_LOG = logging.getLogger("mtm_jax")
_D4RL_URL = "http://rail.eecs.berkeley.edu/datasets/offline_rl/gym_mujoco_v2/"


def load(
    name: str,
    source: str = "builtin",
    steps: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Trajectories:
    """Load the data set `<env>-<level>`, for example "hopper-medium-replay".

    Args:
        name: environment and level; for a path, only the environment matters.
        source: "builtin" (collected on this machine), "d4rl" (official files), "minari",
            "minari:<id>", or the path of a D4RL-layout .hdf5 file or of a Minari folder.
        steps: size of built-in data, by default D4RL's; the other sources are read as they are.
        seed: of built-in data.
        progress: whether to draw a progress bar while collecting.

    Returns:
        Checked trajectories; `info.env_id` is the environment to evaluate in.

    Raises:
        UserError: name, source or path are wrong, or the data are missing or damaged.
    """
    if source == "builtin":
        return behaviours.load(name, steps, seed, progress=progress)
    if steps is not None:
        _LOG.info(
            "steps=%d applies to built-in data; %s from %s is read whole", steps, name, source
        )
    if source == "d4rl":
        return d4rl.read(_find_d4rl(name), name, source)
    if source == "minari":
        return minari.read(_minari_id(name), name, source=source)
    data_info.env_of(f"{name!r} from {source!r}", name)
    if source.startswith("minari:"):
        return minari.read(source.removeprefix("minari:"), name, source=source)
    return _read_path(name, source)


def _find_d4rl(name: str) -> pathlib.Path:
    """Find the official file where D4RL, or the user, has put it."""
    spec, level = registry.parse_name(name)
    file = f"{spec.name}_{level.replace('-', '_')}-v2.hdf5"
    chosen = os.environ.get("D4RL_DATASET_DIR")
    folders = [
        *([pathlib.Path(chosen).expanduser()] if chosen else []),
        pathlib.Path.home() / ".d4rl" / "datasets",
        cache.folder() / "d4rl",
    ]
    for folder in folders:
        if (folder / file).is_file():
            return folder / file
    raise UserError(
        f"the D4RL file of {name} is in none of {', '.join(map(str, folders))}; "
        f"fetch {_D4RL_URL}{file} and place it in {folders[-1]}"
    )


def _minari_id(name: str) -> str:
    spec, level = registry.parse_name(name)
    return f"mujoco/{spec.name}/{level}-v0"


def _read_path(name: str, source: str) -> Trajectories:
    path = pathlib.Path(source).expanduser()
    if not source or not path.exists():
        raise UserError(
            f"source {source!r} is neither one of {', '.join(SOURCES)}, minari:<id> "
            "nor an existing file or folder; check the path"
        )
    if path.is_dir():
        return minari.read(path.absolute(), name, source=source)
    return d4rl.read(path, name, source)
