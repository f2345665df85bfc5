"""Tasks that consist of a motion: follow it, and how well is measured in one joint."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from mtm_jax.envs.goals import kinematics, motions, waypoints
from mtm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Task:
    """A motion to follow, in an environment that does not end where the robot is unhealthy.

    Attributes:
        data: name of the data set whose models are asked for it.
        move: (robot, steps, settings) -> qpos of every step from the start on, [steps + 1, nq].
        label: name of the joint that is measured.
        dimension: of the observation, that joint.
        steps: of an episode.
        tolerance: largest mean error of an episode that is a success, rad.
        judged: last steps of an episode, whose error decides on success; 0: all of them.
        spacing: steps from one goal to the next.
        given: dimensions that goals give; empty: all of them.
        changed: settings of the motion that differ from its defaults.
    """

    data: str
    move: Callable[..., np.ndarray]
    label: str
    dimension: int
    steps: int
    tolerance: float
    judged: int = 0
    spacing: int = 1
    given: tuple[int, ...] = ()
    changed: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def settings(self) -> dict[str, float]:
        """Settings of the motion, name -> default."""
        own = inspect.signature(self.move).parameters.items()
        return {k: p.default for k, p in own if p.default is not p.empty} | dict(self.changed)


class Tracking(NamedTuple):
    """How E episodes followed a motion, in one joint."""

    errors: np.ndarray  # [E], mean absolute error over the steps after the start, rad
    judged: np.ndarray  # [E], the same over the steps that decide on success, rad
    successes: np.ndarray  # [E] bool


WIGGLE = Task("hopper-medium", motions.wiggle, "torso angle (rad)", 1, 1000, 0.025)
TASKS = {
    "hopper-wiggle": WIGGLE,
    "hopper-wiggle-fast": dataclasses.replace(WIGGLE, changed={"frequency": 0.75}),
    "walker-split": Task(
        *("walker2d-medium", motions.split, "thigh angle (rad)", 2, 400, 0.3),
        judged=100,
        given=(2, 5),  # the thighs; the rest of such a pose is nothing the data know
    ),
    "cheetah-flip": Task(
        *("halfcheetah-medium-replay", motions.flip, "pitch (rad)", 1, 200, 0.5),
        judged=50,
    ),
}


def find(name: str) -> Task:
    """Look a task up.

    Raises:
        UserError: there is none of this name.
    """
    if name not in TASKS:
        close = difflib.get_close_matches(name, TASKS, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UserError(f"unknown task {name!r}; choose one of {', '.join(TASKS)}{hint}")
    return TASKS[name]


def reference(task: Task, env_id: str, steps: int, **settings: float) -> np.ndarray:
    """Compute the observation that a motion has at every step: [steps + 1, S], row 0 is the start.

    Args:
        task: whose motion it is.
        env_id: the environment, of the task's robot.
        steps: of the episode.
        settings: of the motion, where they differ from its defaults.

    Raises:
        UserError: the environment has another robot, or a setting is out of range.
    """
    robot = kinematics.Robot(env_id)
    return robot.moving(task.move(robot, steps, **(task.settings | settings)))


def goals(
    motion: np.ndarray, spacing: int, given: tuple[int, ...] = (), env: str = ""
) -> waypoints.Goals:
    """Make goals of a motion, [L, S]: every `spacing` steps, of all or the given dimensions."""
    found = waypoints.of_episode(motion, spacing, env)
    return found.only(*given) if given else found


def track(task: Task, observations: np.ndarray, motion: np.ndarray) -> Tracking:
    """Measure how episodes follow a motion.

    The error of a step is the absolute difference of the joint from where the motion has it at that
    step, whether or not there is a goal. An episode is a success if its mean over the last
    `task.judged` steps, or over all of them, is at most `task.tolerance`.

    Args:
        task: the joint and the threshold.
        observations: [L, E, S], row 0 is the start.
        motion: [L, S].
    """
    there, wanted = observations[1:, :, task.dimension], motion[1:, None, task.dimension]
    errors = np.abs(there - wanted)
    judged = errors[-task.judged :].mean(0)
    return Tracking(errors.mean(0), judged, judged <= task.tolerance)
