"""Where episodes end in flat arrays of one row per step: one rule for every reader.

`terminals` and `terminations` mean that the environment ended an episode; `timeouts`,
`truncations` and `episode_ends` that something else did; `dones` either; `lengths` counts the
steps of each. Every array that is there is used, and none may contradict another.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import h5py
import numpy as np

from mtm_jax.data import successors
from mtm_jax.errors import UserError

_LOG = logging.getLogger("mtm_jax")
NAMES = ("terminals", "terminations", "timeouts", "truncations", "dones", "episode_ends", "lengths")
FLAGS = NAMES[:-1]  # one for each step
_BY_ENVIRONMENT = ("terminals", "terminations")
_BY_OTHERS = ("timeouts", "truncations", "episode_ends")
# What others call them.
_ALIKE = re.compile(
    r"(is_)?(done|terminal|terminated|termination|timeout|time_out|truncated|truncation|last|first"
    r"|resets?|TimeLimit\.truncated)"
    r"|(episode|traj|trajectory|ep|path)_?(ids?|index|starts?|end|lens?|lengths?)"
    r"|step_type|episodes?|ends?",
    re.IGNORECASE,
)


class Ends(NamedTuple):
    """How every step ends."""

    last: np.ndarray  # [N] bool, the last step of an episode
    terminals: np.ndarray  # [N] bool, True where the environment ended it

    @property
    def lengths(self) -> np.ndarray:
        """Steps of each episode, [episodes]."""
        return np.diff(np.flatnonzero(self.last), prepend=-1)


def find(
    what: str,
    marks: Mapping[str, np.ndarray],
    observations: np.ndarray,
    following: np.ndarray | h5py.Dataset | None = None,
    limit: int | None = None,
    lengths_are: str = "lengths",
) -> Ends:
    """Find the end of every episode; the last row is always one.

    Where `following` contradicts the marks, episodes are cut at its jumps, and that is said. With
    `terminals` or `terminations` only, episodes also end at jumps and at the time limit.

    Args:
        what: the data, for messages.
        marks: name -> array, of NAMES: flags [N], and lengths [episodes].
        observations: [N, S].
        following: [N, S] next observations; None where unknown.
        limit: the time limit in steps; None where unknown.
        lengths_are: what lengths are called in messages.

    Raises:
        UserError: marks are no flags or contradict each other, nothing says where episodes end, or
            `following` says that the rows are no recording.
    """
    rows = len(observations)
    flags = {key: read_flags(what, key, marks[key]) for key in FLAGS if key in marks}
    terminals = _by_environment(what, flags, rows)
    last = np.logical_or.reduce([np.zeros(rows, bool), *flags.values()])
    if "lengths" in marks:
        last = _by_lengths(what, marks["lengths"], last, flags, lengths_are)
    complete = bool(marks.keys() - set(_BY_ENVIRONMENT))  # they would hold timeouts too
    if following is not None:
        fixed = terminals | flags.get("dones", False)
        last = successors.cut(
            what, last, fixed, successors.jumps(following, observations), complete
        )
    if not last.any() and (limit is None or rows > limit):
        raise UserError(_endless(what, rows, limit, marks))
    if not last[-1]:
        _LOG.info("%s: the last episode is cut; it is kept as a non-terminal one", what)
    last[-1] = True
    if not complete and limit is not None:
        last = _with_time_limit(what, last, limit)
    if "dones" in flags and not set(_BY_ENVIRONMENT) & flags.keys():
        terminals = _terminals_of_dones(what, flags, last, limit)
    return Ends(last, terminals)


def read_flags(what: str, name: str, array: np.ndarray) -> np.ndarray:
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


def alike(names: Iterable[str]) -> list[str]:
    """List the names that may mean ends, and are not among those that are used."""
    return [n for n in names if n not in NAMES and _ALIKE.fullmatch(n.rpartition("/")[2])]


def warn_alike(what: str, names: Iterable[str]) -> None:
    """Say which arrays may mean ends and are not used."""
    found = alike(names)
    if found:
        _LOG.warning(
            "%s: not used, though the name may mean ends of episodes: %s; rename what does to one "
            "of %s",
            *(what, ", ".join(found), ", ".join(NAMES)),
        )


def missing(what: str, others: Iterable[str]) -> str:
    """Say that nothing tells where episodes end; `others` are the names that are not used."""
    found = alike(others)
    hint = f"; it has {', '.join(found)}, so rename what means an end" if found else ""
    return f"{what}: nothing says where episodes end; give one of {', '.join(NAMES)}{hint}"


def _by_environment(what: str, flags: Mapping[str, np.ndarray], rows: int) -> np.ndarray:
    """Take what the environment ended; an older and a newer name must say the same."""
    given = [flags[key] for key in _BY_ENVIRONMENT if key in flags]
    if len(given) == 2 and (given[0] != given[1]).any():
        row = int((given[0] != given[1]).argmax())
        raise UserError(
            f"{what}: terminals is {given[0][row]} and terminations is {given[1][row]} at row "
            f"{row}; give only one of them"
        )
    return given[0] if given else np.zeros(rows, bool)


def _by_lengths(
    what: str,
    lengths: np.ndarray,
    marked: np.ndarray,
    flags: Mapping[str, np.ndarray],
    lengths_are: str,
) -> np.ndarray:
    """Mark the ends that lengths tell, which must hold every other mark, [N] bool."""
    rows = len(marked)
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or lengths.min(initial=1) < 1:
        raise UserError(f"{what}: lengths must be one list of whole numbers, each at least 1")
    if lengths.sum() != rows:
        raise UserError(
            f"{what}: lengths sum to {lengths.sum()} steps but there are {rows} rows; both must "
            "agree"
        )
    ends = np.zeros(rows, bool)
    ends[np.cumsum(lengths) - 1] = True
    other = marked & ~ends
    if other.any():
        row = int(other.argmax())
        names = " and ".join(key for key, flag in flags.items() if flag[row])
        raise UserError(
            f"{what}: row {row} ends an episode by {names} but not by {lengths_are}; correct them, "
            "or give only one"
        )
    return ends


def _endless(what: str, rows: int, limit: int | None, marks: Mapping[str, np.ndarray]) -> str:
    more = "" if limit is None else f", more than the limit of {limit} steps"
    return (
        f"{what}: none of {', '.join(key for key in NAMES if key in marks)} is ever set in {rows} "
        f"steps{more}; add timeouts that say where its episodes end"
    )


def _with_time_limit(what: str, last: np.ndarray, limit: int) -> np.ndarray:
    """Mark also every `limit`-th step of an episode."""
    at_limit = (_place(last) + 1) % limit == 0
    if (at_limit & ~last).any():
        _LOG.info(
            "%s: nothing marks timeouts; episodes are cut %d times at the limit of %d steps",
            *(what, (at_limit & ~last).sum(), limit),
        )
    return last | at_limit


def _place(last: np.ndarray) -> np.ndarray:
    """Count the steps before each one in its episode, [N]."""
    rows = np.arange(len(last))
    previous_end = np.maximum.accumulate(np.where(last, rows, -1))
    return rows - np.append(0, previous_end[:-1] + 1)


def _terminals_of_dones(
    what: str, flags: Mapping[str, np.ndarray], last: np.ndarray, limit: int | None
) -> np.ndarray:
    """Tell which ends in `dones` the environment made, [N] bool.

    Where no other flag marks timeouts, they are what falls on the time limit, or on the longest
    episode's length if several episodes have it.
    """
    dones, others = flags["dones"], [flags[key] for key in _BY_OTHERS if key in flags]
    if others:
        return dones & ~np.logical_or.reduce(others)
    steps = _place(last) + 1
    longest = steps[last].max()
    if limit is None and (steps[last] == longest).sum() > 1:
        limit = int(longest)
    timeouts = dones & (steps == limit)
    _LOG.warning(
        "%s: dones do not tell terminals from timeouts: %d on step %s are taken for timeouts, and "
        "%d others for terminals; give terminals and timeouts to tell them apart",
        *(what, timeouts.sum(), "-" if limit is None else limit, (dones & ~timeouts).sum()),
    )
    return dones & ~timeouts
