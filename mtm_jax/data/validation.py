"""The door that every source passes: shapes, types, finite values, endings and action bounds."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np

from mtm_jax.data import doubts
from mtm_jax.data import info as data_info
from mtm_jax.errors import UserError
from mtm_jax.types import MODALITIES, DataInfo, Trajectories

_LOG = logging.getLogger("mtm_jax")
_DEMONSTRATED = ("adroit", "robomimic")  # suites whose demonstrations know no time limit
_LEAST = 1e-26  # of an average reward; differences of 1e-4 of it can still be divided by
_RANKS = {
    "observations": 2,
    "actions": 2,
    "rewards": 1,
    "terminals": 1,
    "lengths": 1,
    "final_observations": 2,
}


def check(trajectories: Trajectories, clip_actions: bool = False) -> Trajectories:
    """Check trajectories of unknown origin and bring them into their documented types.

    Numbers become float32. What is repaired or looks wrong is said by a warning of the logger
    "mtm_jax": a few actions beyond the bounds in `info` are clipped, and an observation after the
    last step that is the next episode's first one is taken for unknown.

    Args:
        trajectories: arrays of any numeric type; trailing axes of length 1 are dropped.
        clip_actions: whether any number of actions may be clipped.

    Returns:
        The same episodes, ready for use.

    Raises:
        UserError: types, ranks, sizes or lengths do not fit, a value is NaN, infinite or zero in
            float32 only, there are no steps, the dimensions are not those of the environment, an
            episode exceeds its time limit, or too many actions exceed their bounds.
    """
    what = f"data set {trajectories.info.name} ({trajectories.info.source})"
    arrays = {name: _typed(what, name, getattr(trajectories, name)) for name in _RANKS}
    _check_rows(what, arrays)
    _check_dimensions(what, arrays, trajectories.info)
    _check_lengths(what, arrays["lengths"], len(arrays["rewards"]))
    _check_finite(what, arrays)
    _check_endings(what, arrays)
    info = _with_time_limit(what, arrays["lengths"], trajectories.info)
    _check_scale(what, trajectories.rewards, info.max_episode_steps)
    doubts.warn(what, arrays, trajectories.info)
    arrays["final_observations"] = doubts.without_resets(what, arrays)
    arrays["actions"] = doubts.clip(what, arrays["actions"], info, clip_actions)
    available = _checked_available(what, trajectories)
    train = _checked_split(what, trajectories)
    return dataclasses.replace(trajectories, **arrays, available=available, train=train, info=info)


def _typed(what: str, name: str, value: np.ndarray) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise UserError(f"{what}: {name} has type {array.dtype}, expected numbers; convert it")
    while array.ndim > _RANKS[name] and array.shape[-1] == 1:
        array = array[..., 0]
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
        typed = np.ascontiguousarray(array, np.float32)
    return typed


def _check_scale(what: str, rewards: np.ndarray, limit: int) -> None:
    """Refuse rewards that float32 cannot tell from zero, on average over the time limit too."""
    size, least = np.abs(np.asarray(rewards)).max(initial=0.0), _LEAST * limit
    if 0 < size < least:
        raise UserError(
            f"{what}: the largest reward is {size:.3g}, too small for float32 under a time limit "
            f"of {limit} steps; rewards must reach {least:.3g}, so multiply them by a constant"
        )


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
    spec = data_info.spec_of(info)
    if spec is not None:
        _require_dims(what, "observations", observed, spec.obs_dim, info.env_id or spec.name)
    expected = (len(arrays["lengths"]), observed)
    if arrays["final_observations"].shape != expected:
        raise UserError(
            f"{what}: final_observations has shape {list(arrays['final_observations'].shape)}, "
            f"expected {list(expected)}; give one row per episode"
        )


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


def _with_time_limit(what: str, lengths: np.ndarray, info: DataInfo) -> DataInfo:
    """Raise the time limit to the longest episode where people demonstrated, without a limit."""
    longest, spec = int(lengths.max()), data_info.spec_of(info)
    if longest <= info.max_episode_steps:
        return info
    if spec is None or spec.suite not in _DEMONSTRATED:
        raise UserError(
            f"{what}: episode {int(lengths.argmax())} has {longest} steps, more than the time "
            f"limit of {info.max_episode_steps} of {info.env_id or info.name}; mark where its "
            "episodes end, or name the environment that has such a limit"
        )
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
