"""Bare environments stepped together, without jax: the inner loop of collecting and evaluating."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import gymnasium
import mujoco
import numpy as np
from gymnasium.envs.mujoco import half_cheetah_v5, hopper_v5, walker2d_v5

_LOCOMOTION = (
    half_cheetah_v5.HalfCheetahEnv,
    hopper_v5.HopperEnv,
    walker2d_v5.Walker2dEnv,
)

Stepped = tuple[np.ndarray, np.ndarray, np.ndarray]  # observations, rewards, terminals


class Simulations(Protocol):
    """Bare environments of one kind, addressed by their number."""

    envs: list[gymnasium.Env]

    def step(self, numbers: Sequence[int], actions: np.ndarray) -> Stepped:
        """Step some of them with actions [n, A] in the environment's units: [n, S], [n], [n]."""


def simulate(envs: list[gymnasium.Env]) -> Simulations:
    """Choose the fastest way to step environments of one kind."""
    return Locomotion(envs) if are_locomotion(envs) else OneByOne(envs)


def are_locomotion(envs: list[gymnasium.Env]) -> bool:
    """Whether bare environments are all of the kind that `Locomotion` steps."""
    return all(type(env) in _LOCOMOTION for env in envs)


class OneByOne:
    """Any environments."""

    def __init__(self, envs: list[gymnasium.Env]):
        self.envs = envs

    def step(self, numbers: Sequence[int], actions: np.ndarray) -> Stepped:
        """See `Simulations`."""
        steps = [self.envs[n].step(a) for n, a in zip(numbers, actions, strict=True)]
        obs, rewards, terminals, _, _ = zip(*steps, strict=True)
        return np.stack(obs), np.array(rewards), np.array(terminals, bool)


class Locomotion:
    """Hopper-v5, Walker2d-v5 or HalfCheetah-v5: only the physics is stepped one by one.

    Rewards, endings and observations are computed for all at once, from the settings of the
    environments and to the last bit like theirs; forces, which none of them reads, are not.
    """

    def __init__(self, envs: list[gymnasium.Env]):
        self.envs = envs
        self._physics = [
            (env.model, env.data, env.data.ctrl, env.data.qpos, env.data.qvel) for env in envs
        ]
        first = envs[0]
        self._dt, self._frames = first.dt, first.frame_skip
        self._cost = first._ctrl_cost_weight
        self._speed = first._forward_reward_weight
        self._alive = getattr(first, "_healthy_reward", None)  # the cheetah cannot fall
        if self._alive is not None:
            self._ends = first._terminate_when_unhealthy
            self._z, self._angle = first._healthy_z_range, first._healthy_angle_range
            self._state = getattr(first, "_healthy_state_range", (-np.inf, np.inf))

    def step(self, numbers: Sequence[int], actions: np.ndarray) -> Stepped:
        """See `Simulations`."""
        _, _, _, qpos, qvel = self._physics[numbers[0]]
        before = np.empty(len(numbers))
        positions = np.empty((len(numbers), len(qpos)))
        velocities = np.empty((len(numbers), len(qvel)))
        for k, number in enumerate(numbers):
            model, data, ctrl, qpos, qvel = self._physics[number]
            before[k] = qpos[0]
            ctrl[:] = actions[k]
            mujoco.mj_step(model, data, self._frames)
            positions[k], velocities[k] = qpos, qvel
        speed = (positions[:, 0] - before) / self._dt
        cost = self._cost * np.square(actions).sum(-1)
        if self._alive is None:
            observations = np.concatenate([positions[:, 1:], velocities], axis=1)
            return observations, self._speed * speed - cost, np.zeros(len(numbers), bool)
        healthy = self._healthy(positions, velocities)
        observations = np.concatenate([positions[:, 1:], np.clip(velocities, -10, 10)], axis=1)
        rewards = self._speed * speed + healthy * self._alive - cost
        return observations, rewards, ~healthy & self._ends

    def _healthy(self, positions: np.ndarray, velocities: np.ndarray) -> np.ndarray:
        height, angle = positions[:, 1], positions[:, 2]
        healthy = (self._z[0] < height) & (height < self._z[1])
        healthy &= (self._angle[0] < angle) & (angle < self._angle[1])
        for part in (positions[:, 2:], velocities):
            healthy &= ((self._state[0] < part) & (part < self._state[1])).all(-1)
        return healthy
