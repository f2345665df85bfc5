"""Motions that no data show: poses over time, from the kinematics of the robots.

Each is a row of qpos for every step from the start on, [L, nq]; `kinematics.Robot.moving` turns
them into observations. Like those of the papers they are guidance: no motion is checked against the
dynamics.
"""

from __future__ import annotations

import numpy as np

from mtm_jax.envs.goals import kinematics
from mtm_jax.errors import UserError


def wiggle(
    robot: kinematics.Robot, steps: int, frequency: float = 0.25, amplitude: float = 0.05
) -> np.ndarray:
    """Let a hopper lean forwards and backwards like a pole on a foot that stays flat.

    Args:
        robot: a hopper.
        steps: L - 1.
        frequency: Hz; the papers' 2 and 6 swings in 1000 steps of 8 ms are 0.25 and 0.75.
        amplitude: of the angle of the torso, rad.

    Returns:
        [L, nq]
    """
    _require(robot, "hopper", "wiggle")
    _positive(frequency=frequency, amplitude=amplitude)
    qpos = _resting(robot, steps)
    angle = amplitude * np.sin(2 * np.pi * frequency * robot.dt * np.arange(steps + 1))
    qpos[:, kinematics.PITCH] = qpos[:, robot.joint("foot_joint")] = angle
    return robot.anchored(qpos, "foot")


def split(
    robot: kinematics.Robot, steps: int, angle: float = 1.2, duration: float = 2.0
) -> np.ndarray:
    """Let a walker slide its legs apart on flat feet, and stand so.

    The thighs of this robot turn backwards only: the trunk leans back by half of the angle, so that
    one leg is as far in front as the other is behind.

    Args:
        robot: a walker2d.
        steps: L - 1.
        angle: between the thighs in the end, rad.
        duration: seconds until then.

    Returns:
        [L, nq]
    """
    _require(robot, "walker2d", "split")
    _positive(angle=angle, duration=duration)
    qpos = _resting(robot, steps)
    opened = angle * _ramp(robot, steps, duration)
    qpos[:, robot.joint("thigh_joint")] = -opened
    qpos[:, kinematics.PITCH] = qpos[:, robot.joint("foot_left_joint")] = -opened / 2
    qpos[:, robot.joint("foot_joint")] = opened / 2
    return robot.grounded(qpos)


def flip(
    robot: kinematics.Robot, steps: int, angle: float = np.pi, duration: float = 1.5
) -> np.ndarray:
    """Let a cheetah turn over and lie there; it touches the ground all the time.

    Args:
        robot: a halfcheetah.
        steps: L - 1.
        angle: of the trunk in the end, rad; a positive one lowers the head.
        duration: seconds until then.

    Returns:
        [L, nq]
    """
    _require(robot, "halfcheetah", "flip")
    _positive(size_of_the_angle=abs(angle), duration=duration)
    qpos = _resting(robot, steps)
    qpos[:, kinematics.PITCH] = angle * _ramp(robot, steps, duration)
    return robot.grounded(qpos)


def _resting(robot: kinematics.Robot, steps: int) -> np.ndarray:
    if steps < 1:
        raise UserError(f"a motion of {steps} steps was asked for; give at least 1")
    return np.tile(robot.rest, (steps + 1, 1))


def _ramp(robot: kinematics.Robot, steps: int, duration: float) -> np.ndarray:
    return np.minimum(robot.dt * np.arange(steps + 1) / duration, 1.0)


def _require(robot: kinematics.Robot, name: str, motion: str) -> None:
    if robot.name != name:
        raise UserError(f"{motion} is a motion of {name}, and this robot is {robot.name}")


def _positive(**numbers: float) -> None:
    for name, value in numbers.items():
        if not 0 < value < np.inf:
            raise UserError(f"{name.replace('_', ' ')} is {value}; it must be positive and finite")
