"""Where episodes end in flat arrays of one row per step, and how data of no environment are named.

Arrays may also be HDF5 data sets: `next_observations` is as large as the observations, and only a
row per episode of it is ever kept.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import h5py
import numpy as np

from mtm_jax.data import info as data_info
from mtm_jax.envs import registry
from mtm_jax.errors import UserError
from mtm_jax.types import DataInfo

_LOG = logging.getLogger("mtm_jax")
_FLAGS = {"terminals", "timeouts", "episode_ends"}
_PART = 16_384  # rows of next_observations that are held at a time
_ROUNDING = 1e-5  # beyond a bound; more is no longer a matter of float32


def check_rows(what: str, arrays: Mapping[str, np.ndarray | h5py.Dataset]) -> None:
    """Refuse what would break before `validation.check` sees it.

    Raises:
        UserError: the arrays do not have one row of numbers per step, and at least one.
    """
    shape = np.shape(arrays["observations"])
    for key, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise UserError(f"{what}: {key} has type {array.dtype}, expected numbers; convert it")
        if np.shape(array)[:1] != shape[:1] or not shape or shape[0] == 0:
            raise UserError(
                f"{what}: {key} has shape {list(np.shape(array))} and observations has shape "
                f"{list(shape)}; every array needs one row per step, and at least one"
            )
    for key in _FLAGS & arrays.keys():
        if len(arrays[key].shape) != 1:
            raise UserError(
                f"{what}: {key} is {arrays[key].dtype} of shape {list(arrays[key].shape)}, "
                "expected one boolean per step"
            )
    if len(shape) != 2:
        raise UserError(
            f"{what}: observations has shape {list(shape)}, expected 2 dimensions; give one flat "
            "row per step"
        )
    following = arrays.get("next_observations", arrays["observations"])
    if following.shape != shape:
        raise UserError(
            f"{what}: next_observations has shape {list(following.shape)}, expected the shape "
            f"{list(shape)} of observations"
        )


def flags(what: str, name: str, array: np.ndarray) -> np.ndarray:
    """Turn an array of 0 and 1 into booleans.

    Raises:
        UserError: it holds something else.
    """
    odd = np.flatnonzero((array != 0) & (array != 1))
    if len(odd):
        raise UserError(
            f"{what}: {name} is {array[odd[0]]} at row {odd[0]}; every entry must be 0 or 1"
        )
    return array.astype(bool)


def ends(
    what: str,
    terminals: np.ndarray,
    cuts: np.ndarray | None,
    observations: np.ndarray,
    following: np.ndarray | h5py.Dataset | None,
    limit: int | None,
) -> np.ndarray:
    """Mark the last step of every episode; the last row is always marked.

    Args:
        what: the data, for messages.
        terminals: [N] bool.
        cuts: [N] bool, where else episodes end, such as at timeouts. Where it is None, they end
            where the successor of a step is not the next row's observation, and at the limit.
        observations: [N, S].
        following: [N, S] next observations; None where unknown.
        limit: the time limit in steps; None where unknown.

    Returns:
        [N] bool.

    Raises:
        UserError: nothing says where episodes end.
    """
    found = terminals.copy()
    if cuts is not None:
        found |= cuts
    elif following is not None:
        found |= _jumps(following, observations)
    if not found.any() and (limit is None or len(found) > limit):
        more = "" if limit is None else f", more than the limit of {limit} steps"
        raise UserError(
            f"{what}: neither terminals nor timeouts is ever set in {len(found)} steps{more}; "
            "add timeouts that say where its episodes end"
        )
    if not found[-1]:
        _LOG.info("%s: the last episode is cut; it is kept as a non-terminal one", what)
    found[-1] = True
    return found if cuts is not None or limit is None else _with_time_limit(found, limit)


def _jumps(following: np.ndarray | h5py.Dataset, observations: np.ndarray) -> np.ndarray:
    """Mark steps whose successor is not the next row's observation, [N] bool."""
    found = np.zeros(len(observations), bool)
    for start in range(0, len(observations) - 1, _PART):
        expected = observations[start + 1 : start + 1 + _PART]
        rows = slice(start, start + len(expected))
        same = np.isclose(following[rows], expected, rtol=1e-5, atol=1e-6, equal_nan=True)
        found[rows] = ~same.all(axis=-1)
    return found


def _with_time_limit(found: np.ndarray, limit: int) -> np.ndarray:
    """Mark also every `limit`-th step of an episode."""
    rows = np.arange(len(found))
    previous_end = np.maximum.accumulate(np.where(found, rows, -1))
    start = np.append(0, previous_end[:-1] + 1)  # [N] first row of each step's episode
    return found | ((rows - start + 1) % limit == 0)


def final_observations(
    following: np.ndarray | h5py.Dataset | None, found: np.ndarray, dims: int
) -> np.ndarray:
    """Take what follows each episode's last step, [episodes, dims]; NaN where unknown."""
    if following is None:
        return np.full((int(found.sum()), dims), np.nan, np.float32)
    starts = range(0, len(found), _PART)
    return np.concatenate([following[k : k + _PART][found[k : k + _PART]] for k in starts])


def is_custom(name: str) -> bool:
    """Whether a name stands for an environment that the registry does not know."""
    return name.startswith("custom") and data_info.find_env(name) is None


def name_in(spec: registry.EnvSpec, name: str) -> str:
    """Return the name, which starts with its environment as other parts of the package expect."""
    return name if data_info.find_env(name) is spec else f"{spec.name}-{name}"


def describe(
    what: str,
    name: str,
    source: str,
    actions: np.ndarray,
    lengths: np.ndarray,
    max_episode_steps: int | None = None,
    bounds: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
) -> DataInfo:
    """Describe data of an environment that the registry does not know.

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


def _bounds(what: str, actions: np.ndarray, low, high) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest action, [A] each."""
    dims = actions.shape[1] if actions.ndim == 2 else 1  # validation refuses other ranks
    if low is None and high is None:
        finite = np.isfinite(actions).all()  # validation says where it is not
        least, most = (float(actions.min()), float(actions.max())) if finite else (0.0, 0.0)
        if max(-least, most) > 1.0 + _ROUNDING:
            raise UserError(
                f"{what}: actions range from {least:.4g} to {most:.4g}, beyond [-1, 1]; "
                "rescale them, or give action_low and action_high to "
                "mtm_jax.trajectories_from_arrays or in an npz file"
            )
        low, high = -1.0, 1.0
    given = [np.ravel(b).astype(float) for b in (low, high) if b is not None]
    if len(given) < 2 or any(len(b) not in (1, dims) for b in given):
        raise UserError(
            f"{what}: action_low is {low} and action_high is {high}; give both, each a number "
            f"or one for each of the {dims} dimensions"
        )
    low, high = (np.broadcast_to(bound, dims) for bound in given)
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
        raise UserError(
            f"{what}: action_low is {low} and action_high is {high}; each must be finite and "
            "the first below the second"
        )
    return low, high
