"""Makes trajectories of your own arrays, with or without an environment that this package knows."""

from __future__ import annotations

import logging
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from mtm_jax.data import archives, custom, endings, episodes
from mtm_jax.data import info as data_info
from mtm_jax.data.exorl import relabel
from mtm_jax.envs import registry
from mtm_jax.errors import UserError
from mtm_jax.types import DataInfo, Trajectories

_LOG = logging.getLogger("mtm_jax")
_KEYS = ("observations", "actions", "rewards", "next_observations", *endings.NAMES)
_SETTINGS = ("max_episode_steps", "action_low", "action_high")


def from_arrays(
    arrays: Mapping[str, np.ndarray],
    name: str = "custom",
    env: str | None = None,
    max_episode_steps: int | None = None,
    action_low: float | np.ndarray | None = None,
    action_high: float | np.ndarray | None = None,
    clip_actions: bool = False,
) -> Trajectories:
    """Make trajectories of flat arrays in which episodes lie end to end.

        mtm_jax.trajectories_from_arrays(
            {"observations": obs, "actions": actions, "rewards": rewards, "lengths": [200, 180]}
        )

    Episodes end at `terminals` or `terminations` (the environment ended them), at `timeouts`,
    `truncations` or `episode_ends` (something else did), at `dones` (either), or after `lengths`
    steps; give at least one of them. A last episode that nothing ends was cut: it is kept. With
    `terminals` only, episodes are also cut where `next_observations` and the following observation
    differ, and at the time limit.

    Args:
        arrays: observations [N, S] and actions [N, A]; and, where you have them, rewards [N],
            next_observations [N, S], flags of ends [N] bool, and lengths [episodes]. Trailing axes
            of length 1 are dropped. Without rewards the data have neither rewards nor returns.
            What is float32 already is shared, not copied.
        name: what to call the data.
        env: a name or id of the registry, such as "hopper" or "Hopper-v4", which the dimensions
            must be those of; without it the data can be learnt from but not evaluated.
        max_episode_steps: the time limit of an environment of your own; by default the longest
            episode's steps.
        action_low: its least action, a number or [A]; by default -1, if all actions are in [-1, 1].
        action_high: its greatest action, likewise.
        clip_actions: whether any number of actions may lie outside the bounds and be clipped.

    Returns:
        Checked trajectories; the rewards of pen and door are the papers'.

    Raises:
        UserError: an array is missing, of another size or not of numbers; nothing says where
            episodes end; the environment is unknown; or bounds are needed.
    """
    about = _about(name, env)
    settings = dict(zip(_SETTINGS, (max_episode_steps, action_low, action_high), strict=True))
    unknown = [key for key in arrays if key not in _KEYS]
    what = f"data set {name}"
    used = {key: _array(what, key, arrays[key]) for key in arrays if key in _KEYS}
    made = _make(what, used, unknown, about, (name, "arrays"), settings, clip_actions)
    return relabel.as_papers(made)


def _about(name: str, env: str | None) -> DataInfo | None:
    """Describe the environment that data called `name` are said to be from; None without one."""
    named = data_info.asked_id(name, given=False)
    if env is None:
        known = data_info.find_env(name)
        if known is not None:
            raise UserError(
                f"the name {name!r} is that of the environment {known.name}; give "
                f"env={named or known.name!r} if the data are from it, and another name if not"
            )
        return None
    spec, env_id = _find_env(env)
    if named not in (None, env_id):
        raise UserError(f"the data are called {name!r} and env is {env!r}; give env={named!r}")
    return data_info.of_env(spec, env_id, data_info.name_in(spec, name), "arrays")


def read(
    path: str | os.PathLike,
    about: DataInfo | str | None = None,
    source: str | None = None,
    clip_actions: bool = False,
) -> Trajectories:
    """Read an npz file of the arrays that `from_arrays` takes.

    The file may also hold max_episode_steps, action_low and action_high.

    Args:
        path: the file.
        about: a DataInfo; or a name that starts with an environment of the registry, or with
            "custom" for one that is not there; by default the file's name, which may be any.
        source: what `info.source` says; by default the path.
        clip_actions: see `from_arrays`.

    Returns:
        Checked trajectories.

    Raises:
        UserError: the file is missing, damaged or holds objects; or see `from_arrays`.
    """
    path = pathlib.Path(path).expanduser()
    what, source = f"file {path}", str(path) if source is None else source
    name = path.stem if about is None else about
    if not isinstance(about, DataInfo):
        known = about is None or custom.is_one(name)
        spec = data_info.find_env(name) if known else data_info.env_of(what, name)
        given, about = about is not None, None
        if spec is not None:
            env_id = data_info.asked_id(name, given) or spec.builtin_id
            about = data_info.of_env(spec, env_id, data_info.name_in(spec, name), source)
    with archives.open_file(path) as file:
        arrays, unknown = archives.load_npz(what, file, (*_KEYS, *_SETTINGS))
    settings = {key: arrays.pop(key, None) for key in _SETTINGS}
    return _make(what, arrays, unknown, about, (name, source), settings, clip_actions)


def _find_env(env: str) -> tuple[registry.EnvSpec, str]:
    """The environment that a name or an id stands for, and the id to evaluate in."""
    spec = next((s for s in registry.ENVS.values() if env in s.env_ids), None)
    if spec is not None:
        return spec, env
    spec, _ = registry.split_name(env)
    return spec, data_info.asked_id(env) or spec.builtin_id


def _array(what: str, key: str, value: object) -> np.ndarray:
    try:
        return np.asarray(value)
    except ValueError as error:
        raise UserError(
            f"{what}: {key} is not one array ({error}); put the episodes end to end in one"
        ) from error


def _make(
    what: str,
    arrays: dict[str, np.ndarray],
    unknown: list[str],
    about: DataInfo | None,
    named: tuple[str, str],
    settings: dict[str, Any],
    clip_actions: bool,
) -> Trajectories:
    """Cut the arrays into episodes; `named` and `settings` describe data of no environment."""
    _check_keys(what, arrays, unknown)
    limit = _limit(what, settings, about)
    bounds = settings["action_low"], settings["action_high"]

    def describe(actions: np.ndarray, lengths: np.ndarray) -> DataInfo:
        return about or custom.describe(what, *named, actions, lengths, limit, bounds)

    return episodes.make(what, arrays, describe, limit, clip_actions)


def _check_keys(what: str, arrays: dict[str, np.ndarray], unknown: list[str]) -> None:
    if unknown:
        _LOG.warning("%s: not used: %s; used are %s", what, ", ".join(unknown), ", ".join(_KEYS))
    missing = [key for key in ("observations", "actions") if key not in arrays]
    if missing:
        raise UserError(
            f"{what} lacks {', '.join(missing)} (it has {', '.join(arrays) or 'nothing'}); give "
            "observations [N, S] and actions [N, A]"
        )
    if not set(endings.NAMES) & arrays.keys():
        raise UserError(endings.missing(what, unknown))


def _limit(what: str, settings: dict[str, Any], about: DataInfo | None) -> int | None:
    given = [key for key, value in settings.items() if value is not None]
    if about is not None:
        if given:
            raise UserError(
                f"{what}: {about.name} brings its own time limit and bounds; leave out "
                f"{', '.join(given)}, or the environment"
            )
        return about.max_episode_steps
    limit = settings["max_episode_steps"]
    return None if limit is None else custom.whole_steps(what, "max_episode_steps", limit)
