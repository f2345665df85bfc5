"""What next observations say: where a recording jumps, and what follows an episode's last step.

They may be an HDF5 data set: they are as large as the observations, and are only held in parts.
"""

from __future__ import annotations

import logging

import h5py
import numpy as np

from mtm_jax.errors import UserError

_LOG = logging.getLogger("mtm_jax")
_PART = 16_384  # rows that are held at a time
_NEAR = 3  # rows by which a mark may stand wrong
_SHUFFLED = 0.5  # share of steps that jump, beyond which rows are no recording


def jumps(following: np.ndarray | h5py.Dataset, observations: np.ndarray) -> np.ndarray:
    """Mark steps whose next observation is not that of the following row, [N] bool.

    Args:
        following: [N, S] next observations.
        observations: [N, S].
    """
    found = np.zeros(len(observations), bool)
    for start in range(0, len(observations) - 1, _PART):
        expected = observations[start + 1 : start + 1 + _PART]
        rows = slice(start, start + len(expected))
        given = np.reshape(following[rows], expected.shape)
        same = np.isclose(given, expected, rtol=1e-5, atol=1e-6, equal_nan=True)
        same |= ~np.isfinite(expected)  # which is refused as such later
        found[rows] = ~same.all(axis=-1)
    return found


def cut(
    what: str, last: np.ndarray, fixed: np.ndarray, jumping: np.ndarray, complete: bool
) -> np.ndarray:
    """Cut episodes where they jump, and drop a mark near such a jump, which it was meant for.

    Args:
        what: the data, for messages.
        last: [N] bool, the marked ends.
        fixed: [N] bool, marks that cannot move because they say what the environment did.
        jumping: [N] bool, see `jumps`.
        complete: whether the marks should hold every end; jumps are a warning then.

    Returns:
        [N] bool, the ends.

    Raises:
        UserError: most steps jump, so that rows are no recording, or a fixed mark is near one.
    """
    inside = jumping & ~last
    if not inside.any():
        return last
    _check_recording(what, inside, int((~last[:-1]).sum()))
    wrong = last & ~jumping & _near(inside)
    wrong[-1] = False  # nothing follows that could contradict it
    if (wrong & fixed).any():
        row = int((wrong & fixed).argmax())
        raise UserError(
            f"{what}: row {row} is marked as an end, but by next_observations another row near it "
            "is one; correct the marks, or leave out next_observations"
        )
    _LOG.log(
        logging.WARNING if complete else logging.INFO,
        "%s: next_observations jump at %d steps that are not marked as ends, the first in row %d; "
        "episodes are cut there, and %d marks near such a jump are dropped",
        *(what, inside.sum(), inside.argmax(), wrong.sum()),
    )
    return (last & ~wrong) | inside


def _near(marks: np.ndarray) -> np.ndarray:
    """Mark the rows that are at most `_NEAR` away from a marked one, [N] bool."""
    near = np.convolve(marks, np.ones(2 * _NEAR + 1))[_NEAR:-_NEAR]
    return near > 0.5


def _check_recording(what: str, inside: np.ndarray, steps: int) -> None:
    count = int(inside.sum())
    if count > _SHUFFLED * steps:
        raise UserError(
            f"{what}: at {count} of {steps} steps inside episodes next_observations is not the "
            f"observation of the following row, at first in row {int(inside.argmax())}; rows must "
            "be consecutive steps, so put them in order, or leave out next_observations"
        )


def final_observations(
    following: np.ndarray | h5py.Dataset | None, last: np.ndarray, dims: int
) -> np.ndarray:
    """Take what follows each episode's last step, [episodes, dims]; NaN where unknown."""
    if following is None:
        return np.full((int(last.sum()), dims), np.nan, np.float32)
    starts = range(0, len(last), _PART)
    parts = [following[k : k + _PART][last[k : k + _PART]] for k in starts]
    return np.concatenate(parts).reshape(-1, dims)
