"""The door that every source passes: shapes, types, finite values and action bounds."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np

from mtm_jax.data import info as data_info
from mtm_jax.envs import registry
from mtm_jax.errors import UserError
from mtm_jax.types import MODALITIES, DataInfo, Trajectories

_LOG = logging.getLogger("mtm_jax")
_RANKS = {
    "observations": 2,
    "actions": 2,
    "rewards": 1,
    "terminals": 1,
    "lengths": 1,
    "final_observations": 2,
}


def check(trajectories: Trajectories) -> Trajectories:
    """Check trajectories of unknown origin and bring them into their documented types.

    Numbers become float32. Actions beyond the bounds in `info` are clipped, and a warning of the
    logger "mtm_jax" says how many and how far.

    Args:
        trajectories: arrays of any numeric type.

    Returns:
        The same episodes, ready for use.

    Raises:
        UserError: types, ranks, sizes or lengths do not fit, a value is NaN or infinite, there are
            no steps, or the dimensions are not those of the environment.
    """
    what = f"data set {trajectories.info.name} ({trajectories.info.source})"
    arrays = {name: _typed(what, name, getattr(trajectories, name)) for name in _RANKS}
    _check_rows(what, arrays)
    _check_dimensions(what, arrays, trajectories.info)
    _check_lengths(what, arrays["lengths"], len(arrays["rewards"]))
    _check_finite(what, arrays)
    _check_endings(what, arrays)
    arrays["actions"] = _clip(what, arrays["actions"], trajectories.info)
    available = _checked_available(what, trajectories)
    train = _checked_split(what, trajectories)
    info = _with_time_limit(what, arrays["lengths"], trajectories.info)
    return dataclasses.replace(trajectories, **arrays, available=available, train=train, info=info)


def _typed(what: str, name: str, value: np.ndarray) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise UserError(f"{what}: {name} has type {array.dtype}, expected numbers; convert it")
    if array.ndim != _RANKS[name]:
        raise UserError(
            f"{what}: {name} has shape {list(array.shape)}, expected {_RANKS[name]} dimension(s); "
            "give one flat row per step"
        )
    if name == "terminals":
        return _boolean(what, name, array)
    if name == "lengths":
        return _integer(what, name, array)
    with np.errstate(over="ignore"):  # what overflows is refused as infinite later
        return np.ascontiguousarray(array, np.float32)


def _boolean(what: str, name: str, array: np.ndarray) -> np.ndarray:
    odd = np.flatnonzero((array != 0) & (array != 1))
    if len(odd):
        raise UserError(
            f"{what}: {name} is {array[odd[0]]} at row {odd[0]}; every entry must be 0 or 1"
        )
    return array.astype(bool)


def _integer(what: str, name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "iu":
        raise UserError(f"{what}: {name} has type {array.dtype}; it must count steps in integers")
    return array.astype(np.int64)


def _check_rows(what: str, arrays: dict[str, np.ndarray]) -> None:
    rows = len(arrays["observations"])
    if rows == 0 or len(arrays["lengths"]) == 0:
        raise UserError(f"{what} is empty: {rows} steps, {len(arrays['lengths'])} episodes")
    for name in ("actions", "rewards", "terminals"):
        if len(arrays[name]) != rows:
            raise UserError(
                f"{what}: {name} has {len(arrays[name])} rows but observations has {rows}; "
                "every array needs one row per step"
            )


def _check_dimensions(what: str, arrays: dict[str, np.ndarray], info: DataInfo) -> None:
    observed = arrays["observations"].shape[1]
    env = info.env_id or info.name
    _require_dims(what, "actions", arrays["actions"].shape[1], len(info.action_low), env)
    spec = _spec(info)
    if spec is not None:
        _require_dims(what, "observations", observed, spec.obs_dim, info.env_id or spec.name)
    expected = (len(arrays["lengths"]), observed)
    if arrays["final_observations"].shape != expected:
        raise UserError(
            f"{what}: final_observations has shape {list(arrays['final_observations'].shape)}, "
            f"expected {list(expected)}; give one row per episode"
        )


def _spec(info: DataInfo) -> registry.EnvSpec | None:
    """The environment of the data; None where it is not in the registry."""
    if info.env_id:
        return next((s for s in registry.ENVS.values() if info.env_id in s.env_ids), None)
    return data_info.find_env(info.name)


def _require_dims(what: str, name: str, found: int, expected: int, env_id: str) -> None:
    if found != expected:
        raise UserError(
            f"{what}: {name} has {found} dimensions but {env_id} has {expected}; "
            "name the environment that the data were recorded in"
        )


def _check_lengths(what: str, lengths: np.ndarray, rows: int) -> None:
    if lengths.min() < 1:
        first = int(lengths.argmin())
        raise UserError(f"{what}: episode {first} has {lengths[first]} steps; remove it")
    if lengths.sum() != rows:
        raise UserError(
            f"{what}: the lengths of its {len(lengths)} episodes sum to {lengths.sum()} steps "
            f"but there are {rows} rows; both must agree"
        )


def _check_finite(what: str, arrays: dict[str, np.ndarray]) -> None:
    final = arrays["final_observations"]
    unknown = np.isnan(final).all(axis=-1)
    known = np.where(unknown[:, None], 0.0, final)  # a whole row of NaN means "not recorded"
    for name in ("observations", "actions", "rewards", "final_observations"):
        array = known if name == "final_observations" else arrays[name]
        bad = ~np.isfinite(array)
        if bad.any():
            row = int(np.argmax(bad.reshape(len(bad), -1).any(axis=1)))
            raise UserError(
                f"{what}: {name} holds {bad.sum()} NaN, infinite or float32-exceeding values, "
                f"the first in row {row}; remove those episodes"
            )


def _check_endings(what: str, arrays: dict[str, np.ndarray]) -> None:
    last = np.cumsum(arrays["lengths"]) - 1
    inside = arrays["terminals"].copy()
    inside[last] = False
    if inside.any():
        raise UserError(
            f"{what}: terminals is set at {inside.sum()} steps inside an episode, the first in "
            f"row {int(inside.argmax())}; an episode must end at its terminal step"
        )


def _clip(what: str, actions: np.ndarray, info: DataInfo) -> np.ndarray:
    low, high = np.float32(info.action_low), np.float32(info.action_high)
    excess = np.maximum(actions - high, low - actions)  # [N, A], positive = beyond a bound
    outside = excess > 0
    if not outside.any():
        return actions
    _LOG.warning(
        "%s: clipped %d of %d action values to the bounds of %s; the farthest lay %.3g outside",
        *(what, outside.sum(), actions.size, info.env_id or info.name, excess.max()),
    )
    return np.clip(actions, low, high)


def _with_time_limit(what: str, lengths: np.ndarray, info: DataInfo) -> DataInfo:
    """Raise the time limit to the longest episode where people demonstrated, without a limit."""
    longest, spec = int(lengths.max()), _spec(info)
    if longest <= info.max_episode_steps or spec is None or spec.suite == "gymnasium":
        return info
    _LOG.warning(
        "%s: an episode has %d steps, more than the %d of %s; the time limit is raised to it",
        *(what, longest, info.max_episode_steps, spec.name),
    )
    return dataclasses.replace(info, max_episode_steps=longest)


def _checked_split(what: str, trajectories: Trajectories) -> np.ndarray | None:
    if trajectories.train is None:
        return None
    train, episodes = np.asarray(trajectories.train), len(trajectories.lengths)
    if train.shape != (episodes,) or train.dtype != bool:
        raise UserError(
            f"{what}: train is {train.dtype} of shape {list(train.shape)}, expected bool of shape "
            f"[{episodes}], True where an episode is for training"
        )
    return train


def _checked_available(what: str, trajectories: Trajectories) -> dict[str, np.ndarray]:
    episodes = len(trajectories.lengths)
    checked = {}
    for name, value in trajectories.available.items():
        has = np.asarray(value)
        if name not in MODALITIES or has.shape != (episodes,) or has.dtype != bool:
            raise UserError(
                f"{what}: available[{name!r}] is {has.dtype} of shape {list(has.shape)}, expected "
                f"bool of shape [{episodes}] for one of {', '.join(MODALITIES)}"
            )
        checked[name] = has
    return checked
