"""Cut flat arrays of one row per step into episodes.

Arrays may also be HDF5 data sets: `next_observations` is as large as the observations, and only a
row per episode of it is ever kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import h5py
import numpy as np

from mtm_jax.data import endings, hdf5, successors, validation
from mtm_jax.data.recorded import actions
from mtm_jax.errors import UserError
from mtm_jax.types import DataInfo, Trajectories

Array = np.ndarray | h5py.Dataset
# One row of several numbers per step; obs is what robomimic calls observations.
_WIDE = {"observations", "actions", "next_observations", "obs", "next_obs"}


def make(
    what: str,
    arrays: Mapping[str, Array],
    describe: Callable[[np.ndarray, np.ndarray], DataInfo],
    limit: int | None,
    clip_actions: bool = False,
    recorded_bounds: actions.Bounds | None = None,
) -> Trajectories:
    """Cut arrays into checked trajectories.

    Args:
        what: the data, for messages.
        arrays: observations, actions, any of `endings.NAMES`, and perhaps rewards and
            next_observations; without rewards the data have neither rewards nor returns.
        describe: actions [N, A], lengths [episodes] -> where the data come from.
        limit: the time limit in steps; None where unknown.
        clip_actions: see `validation.check`.
        recorded_bounds: to map actions from, see `actions.rescaled_from`; None where they are not
            to be mapped.

    Raises:
        UserError: arrays do not fit, or see `endings.find` and `validation.check`.
    """
    check_rows(what, arrays)
    following = arrays.get("next_observations")
    held = {k: flat(k, _held(k, a)) for k, a in arrays.items() if k != "next_observations"}
    marks = {key: held.pop(key) for key in endings.NAMES if key in held}
    observations = held["observations"]
    ends = endings.find(what, marks, observations, following, limit)
    lengths = ends.lengths
    info = describe(held["actions"], lengths)
    if recorded_bounds is not None:
        held["actions"] = actions.rescale(held["actions"], recorded_bounds, info)
    absent = dict.fromkeys(("rewards", "returns"), np.zeros(len(lengths), bool))
    whole = Trajectories(
        observations=observations,
        actions=held["actions"],
        rewards=held.get("rewards", np.zeros(len(observations), np.float32)),
        terminals=ends.terminals,
        lengths=lengths,
        final_observations=successors.final_observations(
            following, ends.last, observations.shape[1]
        ),
        info=info,
        available={} if "rewards" in held else absent,
    )
    return validation.check(whole, clip_actions)


def _held(key: str, array: Array) -> np.ndarray:
    """Read an array; rewards in the type that they have, so that none is rounded to zero."""
    if not isinstance(array, h5py.Dataset):
        return array
    return array[()] if key == "rewards" else hdf5.load(array)


def check_rows(what: str, arrays: Mapping[str, Array]) -> None:
    """Refuse arrays that are not one row of numbers per step, before they are read.

    Raises:
        UserError: types or shapes do not fit, or there are no steps.
    """
    shapes = {key: flat_shape(key, array.shape) for key, array in arrays.items()}
    expected = shapes["observations"]
    for key, shape in shapes.items():
        if arrays[key].dtype.kind not in "fiub":
            kind = arrays[key].dtype
            raise UserError(f"{what}: {key} has type {kind}, expected numbers; convert it")
        if key == "lengths":
            continue
        if shape[:1] != expected[:1] or not expected or expected[0] == 0:
            raise UserError(
                f"{what}: {key} has shape {list(shape)} and observations has shape "
                f"{list(expected)}; every array needs one row per step, and at least one"
            )
        if len(shape) != _rank(key):
            rows = "one flat row" if key in _WIDE else "one number"
            raise UserError(
                f"{what}: {key} has shape {list(shape)}, expected {_rank(key)} dimension(s); give "
                f"{rows} per step"
            )
    following = shapes.get("next_observations", expected)
    if following != expected:
        raise UserError(
            f"{what}: next_observations has shape {list(following)}, expected the shape "
            f"{list(expected)} of observations"
        )


def flat(key: str, array: np.ndarray) -> np.ndarray:
    """Drop trailing axes of length 1, as rewards of shape [N, 1] have."""
    return array.reshape(flat_shape(key, array.shape))


def flat_shape(key: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of the array called `key` without trailing axes of length 1."""
    while len(shape) > _rank(key) and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _rank(key: str) -> int:
    return 2 if key in _WIDE else 1
