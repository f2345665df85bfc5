"""Describe data of an environment that nobody here knows, by what is in them."""

from __future__ import annotations

import numpy as np

from mtm_jax.data import doubts
from mtm_jax.data import info as data_info
from mtm_jax.errors import UserError
from mtm_jax.types import DataInfo

MAX_STEPS = 2**31 - 1  # rows are counted in int32 on the device
_ROUNDING = 1e-5  # beyond a bound; more is no longer a matter of float32


def is_one(name: str) -> bool:
    """Whether a name stands for an environment that the registry does not know."""
    return name.startswith("custom") and data_info.find_env(name) is None


def describe(
    what: str,
    name: str,
    source: str,
    actions: np.ndarray,
    lengths: np.ndarray,
    max_episode_steps: int | None = None,
    bounds: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
) -> DataInfo:
    """Describe data by what is in them.

    Args:
        what: the data, for messages.
        name: what to call them.
        source: where they come from.
        actions: [N, A].
        lengths: [episodes] steps.
        max_episode_steps: the time limit; by default the longest episode's steps.
        bounds: the least and the greatest action, numbers or [A]; by default -1 and 1.

    Raises:
        UserError: the limit or the bounds do not fit the data, or bounds are needed.
    """
    longest = int(lengths.max())
    if max_episode_steps is not None and max_episode_steps < longest:
        raise UserError(
            f"{what}: an episode has {longest} steps, more than max_episode_steps of "
            f"{max_episode_steps}; give at least {longest}"
        )
    low, high = _bounds(what, actions, *bounds)
    limit = longest if max_episode_steps is None else int(max_episode_steps)
    return DataInfo(name, source, "", limit, tuple(low.tolist()), tuple(high.tolist()))


def whole_steps(what: str, key: str, value: object) -> int:
    """Read a number of steps, as a time limit is.

    Raises:
        UserError: it is no whole number, less than 1, or more than rows can be counted.
    """
    try:
        number = np.asarray(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        number = np.array(np.nan)
    if number.size != 1 or not (1 <= number <= MAX_STEPS and number == np.floor(number)).all():
        raise UserError(
            f"{what}: {key} is {value}; it must be a whole number of steps from 1 to {MAX_STEPS}"
        )
    return int(number.item())


def _bounds(
    what: str, actions: np.ndarray, low: np.ndarray | None, high: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the greatest action, [A] each."""
    dims = actions.shape[1] if actions.ndim == 2 else 1  # validation refuses other ranks
    if low is None and high is None:
        _check_unit(what, actions)
        low, high = -1.0, 1.0
    given = [np.ravel(b) for b in (low, high) if b is not None]
    numbers = all(b.dtype.kind in "fiu" and len(b) in (1, dims) for b in given)
    if len(given) < 2 or not numbers:
        raise UserError(
            f"{what}: action_low is {low} and action_high is {high}; give both, each a number "
            f"or one for each of the {dims} dimensions"
        )
    low, high = (np.broadcast_to(bound.astype(float), dims) for bound in given)
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
        raise UserError(
            f"{what}: action_low is {low} and action_high is {high}; each must be finite and "
            "the first below the second"
        )
    return low, high


def _check_unit(what: str, actions: np.ndarray) -> None:
    if not np.isfinite(actions).all():  # validation says where
        return
    least, most = float(actions.min()), float(actions.max())
    if max(-least, most) <= 1.0 + _ROUNDING:
        return
    discrete = "they are whole numbers, and discrete actions are not modelled; if they are none, "
    raise UserError(
        f"{what}: actions range from {least:.4g} to {most:.4g}, beyond [-1, 1]; "
        f"{discrete if doubts.whole_numbers(actions) else ''}rescale them, or give action_low and "
        "action_high to mtm_jax.trajectories_from_arrays or in an npz file"
    )
