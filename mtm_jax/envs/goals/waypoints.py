"""Goals as data: observations to pass through, at given steps of an episode."""

from __future__ import annotations

import dataclasses

import numpy as np

from mtm_jax.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Goals:
    """Observations to pass through; the last one is held to the end of the episode.

    Attributes:
        states: [W, S] float32, in the environment's units; what is not given is zero.
        steps: [W] int32, ascending, the step of the episode at which to be there; 1 is after the
            first action.
        given: [W, S] bool, the dimensions that matter; the others are free.
        env: name of the environment (see `envs.registry`) that they were made for; "" if unknown.
    """

    states: np.ndarray
    steps: np.ndarray
    given: np.ndarray
    env: str = ""

    @property
    def complete(self) -> bool:
        """Whether every dimension of every goal is given."""
        return bool(self.given.all())

    @property
    def spacing(self) -> int:
        """The most steps from one goal to the next, or from the start to the first."""
        return int(np.diff(self.steps, prepend=0).max())

    def every(self, spacing: int) -> Goals:
        """Keep the goals at multiples of `spacing` steps, and the last one.

        Raises:
            UserError: the spacing is not a positive number of steps.
        """
        if spacing < 1:
            raise UserError(f"goals every {spacing} steps were asked for; give at least 1")
        kept = self.steps % spacing == 0
        kept[-1] = True
        return Goals(self.states[kept], self.steps[kept], self.given[kept], self.env)

    def only(self, *dimensions: int) -> Goals:
        """Let all other dimensions be free.

        Raises:
            UserError: none is named, or there is no such dimension.
        """
        width = self.states.shape[1]
        if not dimensions or not all(0 <= d < width for d in dimensions):
            raise UserError(
                f"dimensions {list(dimensions)} were named; give at least one of 0 to {width - 1}"
            )
        named = np.isin(np.arange(width), dimensions)
        return make(self.states, self.steps, self.given & named, self.env)

    def motion(self, steps: int) -> np.ndarray:
        """Connect the goals by straight lines: [steps + 1, S], a row for every step of an episode.

        The first goal also stands for the steps before it, and the last one for those after it.
        """
        at = np.arange(steps + 1)
        return np.stack([np.interp(at, self.steps, x) for x in self.states.T], axis=1)


def make(
    states: np.ndarray,
    steps: np.ndarray | None = None,
    given: np.ndarray | None = None,
    env: str = "",
) -> Goals:
    """Make goals of arrays.

    Args:
        states: [W, S], or [S] for a single pose.
        steps: [W] whole numbers, ascending from 1 on; None: 1, 2, ..., W.
        given: [S] or [W, S] bool; None: all dimensions are given.
        env: name of the environment that they are for.

    Raises:
        UserError: there is no goal, a shape does not fit, a given value is not finite, a goal gives
            nothing, or the steps are not ascending whole numbers from 1 on.
    """
    states = np.atleast_2d(_numbers("states", states))
    if states.ndim != 2 or not states.size:
        raise UserError(f"goals have states of shape {states.shape}; give at least one, [W, S]")
    given = _given(given, states)
    if not np.isfinite(states[given]).all():
        w, d = np.argwhere(given & ~np.isfinite(states))[0].tolist()
        raise UserError(
            f"goal {w} is {states[w, d]} in dimension {d}; say with `given` that it is free, or "
            "give a finite number"
        )
    filled = np.where(given, states, 0.0).astype(np.float32)
    return Goals(filled, _steps(steps, len(states)), given, env)


def pose(state: np.ndarray, step: int = 1, given: np.ndarray | None = None, env: str = "") -> Goals:
    """Make one state the goal from a step of the episode on; see `make`."""
    return make(np.asarray(state)[None], np.array([step]), given, env)


def of_episode(observations: np.ndarray, spacing: int = 1, env: str = "") -> Goals:
    """Make goals of a recorded episode, in which the states are reached at the same steps.

    Args:
        observations: [n, S], of step 0, which is the start and no goal, and of the following ones.
        spacing: steps from one goal to the next.
        env: name of the environment that it was recorded in.

    Raises:
        UserError: there are fewer than two observations, or one that `make` refuses.
    """
    if len(observations) < 2:
        raise UserError(
            f"an episode of {len(observations)} observations has no goal; give at least 2"
        )
    return make(observations[1:], env=env).every(spacing)


def _numbers(what: str, values: np.ndarray) -> np.ndarray:
    try:
        found = np.asarray(values)
    except ValueError as error:
        raise UserError(f"{what} of goals cannot be read as an array ({error})") from error
    if found.dtype.kind not in "fiub":
        raise UserError(f"{what} of goals have type {found.dtype}; give numbers")
    return found


def _given(given: np.ndarray | None, states: np.ndarray) -> np.ndarray:
    if given is None:
        return np.ones(states.shape, bool)
    given = _numbers("the given dimensions", given)
    if given.shape not in (states.shape, states.shape[1:]):
        raise UserError(
            f"`given` has shape {given.shape} for goals of shape {states.shape}; give one flag for "
            "each dimension, [S] or [W, S]"
        )
    given = np.broadcast_to(given.astype(bool), states.shape).copy()
    if not given.any(axis=1).all():
        raise UserError(f"goal {int(given.any(axis=1).argmin())} gives no dimension; leave it out")
    return given


def _steps(steps: np.ndarray | None, count: int) -> np.ndarray:
    if steps is None:
        return np.arange(1, count + 1, dtype=np.int32)
    found = np.atleast_1d(_numbers("steps", steps))
    if found.shape != (count,):
        raise UserError(f"there are {found.size} steps for {count} goals; give one for each")
    whole = np.isfinite(found).all() and (found == np.floor(found)).all()
    if not whole or found[0] < 1 or not (np.diff(found) > 0).all() or found[-1] > 2**31 - 1:
        raise UserError(
            f"the steps of goals are {found.tolist()[:8]}; give ascending whole numbers from 1 on"
        )
    return found.astype(np.int32)
