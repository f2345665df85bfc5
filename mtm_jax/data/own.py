"""Makes trajectories of your own arrays, with or without an environment that this package knows."""

from __future__ import annotations

import logging
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from mtm_jax.data import archives, episodes, validation
from mtm_jax.data import info as data_info
from mtm_jax.data.exorl import relabel
from mtm_jax.envs import registry
from mtm_jax.errors import UserError
from mtm_jax.types import DataInfo, Trajectories

_LOG = logging.getLogger("mtm_jax")
_ENDS = ("terminals", "timeouts", "episode_ends", "lengths")
_KEYS = ("observations", "actions", "rewards", "next_observations", *_ENDS)
_SETTINGS = ("max_episode_steps", "action_low", "action_high")


def from_arrays(
    arrays: Mapping[str, np.ndarray],
    name: str = "custom",
    env: str | None = None,
    max_episode_steps: int | None = None,
    action_low: float | np.ndarray | None = None,
    action_high: float | np.ndarray | None = None,
) -> Trajectories:
    """Make trajectories of flat arrays in which episodes lie end to end.

        mtm_jax.trajectories_from_arrays(
            {"observations": obs, "actions": actions, "rewards": rewards, "lengths": [200, 180]}
        )

    Episodes end at `terminals` (the environment ended them), at `timeouts` or `episode_ends`
    (something else did), or after `lengths` steps; give at least one of them. A last episode that
    nothing ends was cut: it is kept. With `terminals` only, episodes are also cut where
    `next_observations` and the following observation differ, and at the time limit.

    Args:
        arrays: observations [N, S] and actions [N, A]; and, where you have them, rewards [N],
            next_observations [N, S], terminals, timeouts and episode_ends [N] bool, and lengths
            [episodes]. Without rewards the data have neither rewards nor returns. What is
            float32 already is shared, not copied.
        name: what to call the data.
        env: a name or id of the registry, such as "hopper" or "Hopper-v4", which the dimensions
            must be those of; without it the data can be learnt from but not evaluated.
        max_episode_steps: the time limit of an environment of your own; by default the longest
            episode's steps.
        action_low: its least action, a number or [A]; by default -1, if all actions are in [-1, 1].
        action_high: its greatest action, likewise.

    Returns:
        Checked trajectories; the rewards of pen and door are the papers'.

    Raises:
        UserError: an array is missing, of another size or not of numbers; nothing says where
            episodes end; the environment is unknown; or bounds are needed.
    """
    if env is None:
        about = None
        known = data_info.find_env(name)
        if known is not None:
            raise UserError(
                f"the name {name!r} is that of the environment {known.name}; give env="
                f"{known.name!r} if the data are from it, and another name if not"
            )
    else:
        about = _of_env(env, name, "arrays")
    settings = dict(zip(_SETTINGS, (max_episode_steps, action_low, action_high), strict=True))
    unknown = [key for key in arrays if key not in _KEYS]
    what = f"data set {name}"
    used = {key: _array(what, key, arrays[key]) for key in arrays if key in _KEYS}
    return relabel.as_papers(_make(what, used, unknown, about, (name, "arrays"), settings))


def read(
    path: str | os.PathLike, about: DataInfo | str | None = None, source: str | None = None
) -> Trajectories:
    """Read an npz file of the arrays that `from_arrays` takes.

    The file may also hold max_episode_steps, action_low and action_high.

    Args:
        path: the file.
        about: a DataInfo; or a name that starts with an environment of the registry, or with
            "custom" for one that is not there; by default the file's name, which may be any.
        source: what `info.source` says; by default the path.

    Returns:
        Checked trajectories.

    Raises:
        UserError: the file is missing, damaged or holds objects; or see `from_arrays`.
    """
    path = pathlib.Path(path).expanduser()
    what, source = f"file {path}", str(path) if source is None else source
    name = path.stem if about is None else about
    if not isinstance(about, DataInfo):
        known = about is None or episodes.is_custom(name)
        spec = data_info.find_env(name) if known else data_info.env_of(what, name)
        about = None if spec is None else _of_env(spec.name, name, source)
    with archives.open_file(path) as file:
        arrays, unknown = archives.load_npz(what, file, (*_KEYS, *_SETTINGS))
    settings = {key: arrays.pop(key, None) for key in _SETTINGS}
    return _make(what, arrays, unknown, about, (name, source), settings)


def _of_env(env: str, name: str, source: str) -> DataInfo:
    spec = next((s for s in registry.ENVS.values() if env in s.env_ids), None)
    env_id = env
    if spec is None:
        spec, _ = registry.split_name(env)
        env_id = spec.builtin_id
    return data_info.of_env(spec, env_id, episodes.name_in(spec, name), source)


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
) -> Trajectories:
    """Cut the arrays into episodes; `named` and `settings` describe data of no environment."""
    _check_keys(what, arrays, unknown)
    limit = _limit(what, settings, about)
    given = arrays.pop("lengths", None)
    episodes.check_rows(what, arrays)
    terminals = _flags(what, arrays, "terminals")
    observations, following = arrays["observations"], arrays.get("next_observations")
    ends = episodes.ends(
        what, terminals, _cuts(what, arrays, terminals, given), observations, following, limit
    )
    lengths = np.diff(np.flatnonzero(ends), prepend=-1)
    if about is None:
        bounds = settings["action_low"], settings["action_high"]
        about = episodes.describe(what, *named, arrays["actions"], lengths, limit, bounds)
    without = dict.fromkeys(("rewards", "returns"), np.zeros(len(lengths), bool))
    return validation.check(
        Trajectories(
            observations=observations,
            actions=arrays["actions"],
            rewards=arrays.get("rewards", np.zeros(len(ends), np.float32)),
            terminals=terminals,
            lengths=lengths,
            final_observations=episodes.final_observations(following, ends, observations.shape[1]),
            info=about,
            available={} if "rewards" in arrays else without,
        )
    )


def _check_keys(what: str, arrays: dict[str, np.ndarray], unknown: list[str]) -> None:
    if unknown:
        _LOG.warning("%s: not used: %s; used are %s", what, ", ".join(unknown), ", ".join(_KEYS))
    missing = [key for key in ("observations", "actions") if key not in arrays]
    if missing:
        raise UserError(
            f"{what} lacks {', '.join(missing)} (it has {', '.join(arrays) or 'nothing'}); give "
            "observations [N, S] and actions [N, A]"
        )
    if not set(_ENDS) & arrays.keys():
        raise UserError(f"{what}: nothing says where episodes end; give one of {', '.join(_ENDS)}")


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
    if limit is not None and (np.size(limit) != 1 or not float(limit).is_integer() or limit < 1):
        raise UserError(f"{what}: max_episode_steps is {limit}; it must be 1 or more steps")
    return None if limit is None else int(limit)


def _flags(what: str, arrays: dict[str, np.ndarray], key: str) -> np.ndarray:
    if key not in arrays:
        return np.zeros(len(arrays["observations"]), bool)
    return episodes.flags(what, key, arrays[key])


def _cuts(
    what: str,
    arrays: dict[str, np.ndarray],
    terminals: np.ndarray,
    lengths: np.ndarray | None,
) -> np.ndarray | None:
    """Mark where something other than the environment ended an episode; None if nobody says."""
    marks = _flags(what, arrays, "timeouts") | _flags(what, arrays, "episode_ends")
    if lengths is None:
        return marks if {"timeouts", "episode_ends"} & arrays.keys() else None
    rows = len(marks)
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or lengths.min(initial=1) < 1:
        raise UserError(f"{what}: lengths must be one list of whole numbers, each at least 1")
    if lengths.sum() != rows:
        raise UserError(
            f"{what}: lengths sum to {lengths.sum()} steps but there are {rows} rows; both must "
            "agree"
        )
    ends = np.zeros(rows, bool)
    ends[np.cumsum(lengths) - 1] = True
    other = (marks | terminals) & ~ends
    if other.any():
        raise UserError(
            f"{what}: row {int(other.argmax())} ends an episode by {', '.join(_ENDS[:3])} but not "
            "by lengths; correct them, or give only one"
        )
    return ends
