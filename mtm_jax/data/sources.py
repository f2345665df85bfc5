"""From a data set's name and source to checked trajectories."""

from __future__ import annotations

import logging
import os
import pathlib

import h5py

from mtm_jax.data import hdf5, own
from mtm_jax.data import info as data_info
from mtm_jax.data.builtin import behaviours
from mtm_jax.data.d4rl import files as d4rl_files
from mtm_jax.data.d4rl import reader as d4rl
from mtm_jax.data.exorl import reader as exorl
from mtm_jax.data.exorl import relabel
from mtm_jax.data.minari import reader as minari
from mtm_jax.data.robomimic import reader as robomimic
from mtm_jax.envs import registry
from mtm_jax.errors import UserError
from mtm_jax.types import Trajectories

SOURCES = ("builtin", "d4rl", "minari")
_LOG = logging.getLogger("mtm_jax")


def load(
    name: str,
    source: str = "builtin",
    steps: int | None = None,
    seed: int = 0,
    progress: bool = True,
    clip_actions: bool = False,
) -> Trajectories:
    """Load the data set `<env>-<level>`, for example "hopper-medium-replay".

    Args:
        name: environment and level; for a path, only the environment matters ("custom" for one
            that this package does not know, "" where the file tells).
        source: "builtin" (collected on this machine), "d4rl" (official files), "minari",
            "minari:<id>", or a path: an HDF5 file in D4RL's or robomimic's layout, an npz file of
            your own arrays, a Minari folder, or a folder or zip archive of ExORL episodes.
        steps: size of built-in data, by default `behaviours.STEPS`; of ExORL episodes, how many
            steps to read (whole episodes, the first ones); other sources are read as they are.
        seed: of built-in data.
        progress: whether to draw a progress bar while collecting or downloading.
        clip_actions: whether data of which more than a few actions lie beyond the bounds of the
            environment are read, with these clipped, and robomimic's with absolute actions.

    Returns:
        Checked trajectories; `info.env_id` is the environment to evaluate in. The rewards of pen
        and door are the papers': 1 for every step that ends at the goal.

    Raises:
        UserError: name, source or path are wrong, or the data are missing or damaged.
    """
    if source == "builtin":
        return behaviours.load(name, steps, seed, progress=progress)
    if steps is not None and not is_exorl(source):
        _LOG.info(
            "steps=%d applies to built-in data; %s from %s is read whole", steps, name, source
        )
    return relabel.as_papers(_read(name, source, steps, progress, clip_actions))


def split(text: str) -> tuple[str, str]:
    """Split what a user calls a data set into the name and the source that `load` takes.

    Args:
        text: "hopper-medium" (built-in), "d4rl:hopper-medium", "minari:<id>" or a path
            ("./hopper-medium" for a folder that is called like a built-in data set).
    """
    prefix, colon, rest = text.partition(":")
    if colon and prefix in ("builtin", "d4rl"):
        return rest, prefix
    if text.startswith("minari:"):
        return "", text
    env, _, level = text.partition("-")
    if env in registry.ENVS and level in registry.ENVS[env].levels:
        return text, "builtin"
    if pathlib.Path(text).expanduser().exists():
        return "", text
    if os.sep in text or pathlib.Path(text).suffix:
        raise UserError(f"there is no file or folder {text}; check the path")
    return text, "builtin"


def _read(
    name: str, source: str, steps: int | None, progress: bool, clip_actions: bool
) -> Trajectories:
    shown = {"progress": progress, "clip_actions": clip_actions}
    if source == "d4rl":
        read = d4rl.read(d4rl_files.locate(name, progress=progress), name, source, clip_actions)
        spec, _ = registry.split_name(name)
        if read.info.env_id != spec.d4rl_id:
            _LOG.warning(
                "%s: D4RL's data are of %s; they are evaluated in %s, as their name asks",
                *(name, spec.d4rl_id, read.info.env_id),
            )
        return read
    if source == "minari":
        return minari.read(_minari_id(name), name, source=source, **shown)
    if name and not name.startswith("custom"):
        data_info.env_of(f"{name!r} from {source!r}", name)
    about = name or None
    if source.startswith("minari:"):
        dataset = source.removeprefix("minari:")
        return minari.read(dataset, about, source=source, **shown)
    if is_exorl(source):
        return exorl.read(source, about, source, limit_steps=steps, **shown)
    return _read_path(about, source, clip_actions)


def _minari_id(name: str) -> str:
    spec, level = registry.split_name(name)
    pattern, known = minari.OFFICIAL.get(spec.suite, ("", ()))
    if level not in known:
        offered = ", ".join(f"{spec.name}-{k}" for k in known) or "none of this environment"
        raise UserError(
            f"Minari has no data set for {name!r}; it has {offered}; "
            "name others by their id with the source minari:<id>"
        )
    return pattern.format(spec.name.removesuffix("_dense"), level)


def _read_path(about: str | None, source: str, clip_actions: bool) -> Trajectories:
    path = pathlib.Path(source).expanduser()
    if not source or not path.exists():
        raise UserError(
            f"source {source!r} is neither one of {', '.join(SOURCES)}, minari:<id> "
            "nor an existing file or folder; check the path"
        )
    if path.is_dir():
        return minari.read(path.absolute(), about, source=source, clip_actions=clip_actions)
    readers = {True: robomimic, False: d4rl}
    reader = own if path.suffix == ".npz" else readers[_is_robomimic(path)]
    return reader.read(path, about, source, clip_actions=clip_actions)


def is_exorl(source: str) -> bool:
    """Whether a path holds ExORL episodes: an archive, or a folder of npz files."""
    path = pathlib.Path(source).expanduser()
    if not source or source in SOURCES or not path.exists():
        return False
    return path.suffix == ".zip" or (path.is_dir() and next(path.rglob("*.npz"), None) is not None)


def _is_robomimic(path: pathlib.Path) -> bool:
    """Whether an HDF5 file has demonstrations; what cannot be opened is left to the reader."""
    try:
        with hdf5.opened(path) as file:
            return isinstance(file.get("data"), h5py.Group) and "observations" not in file
    except UserError:
        return False
