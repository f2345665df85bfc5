"""Stand, walk and run of dm_control's walker, the tasks of the ExORL benchmark, for gymnasium.

The three share dynamics and resets: a recording of one is a recording of all, with other rewards.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable
from typing import NamedTuple

import gymnasium
import mujoco
import numpy as np

from mtm_jax.errors import UserError
from mtm_jax.io import progress as progress_bar

_BACKEND = "MUJOCO_GL"
# dm_control looks for a window system when it is imported and warns where there is none. mujoco,
# imported above, and other environments keep the user's choice, or their own.
_chosen = os.environ.get(_BACKEND)
_known = (_chosen or "").lower() in ("egl", "glfw", "osmesa")
os.environ[_BACKEND] = _chosen.lower() if _known else "disable"
try:
    with warnings.catch_warnings(action="ignore"):
        from dm_control.rl import control
        from dm_control.suite import walker
finally:
    del os.environ[_BACKEND]
    if _chosen is not None:
        os.environ[_BACKEND] = _chosen

TASKS = ("stand", "walk", "run")
MAX_EPISODE_STEPS = 1000
STATE_DIM, OBS_DIM, ACTION_DIM = 18, 24, 6
_PROGRESS_EVERY = 1000  # states


class Walker(gymnasium.Env):
    """One task; observation: orientations of 7 bodies (14), torso height, velocities (9)."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 40}

    def __init__(self, task: str, render_mode: str | None = None):
        """Load the model; `task` is one of TASKS."""
        self.render_mode = render_mode
        self._suite = _load(task)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (ACTION_DIM,), np.float32)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (OBS_DIM,), np.float64)

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        """Draw random joint angles; the draw depends on `np_random` alone."""
        super().reset(seed=seed)
        self._suite.task.random.seed(int(self.np_random.integers(2**32)))
        return _flat(self._suite.reset()), {}

    def step(self, action: np.ndarray):
        """Hold the action for 25 ms; the environment itself never ends an episode."""
        time_step = self._suite.step(action)
        return _flat(time_step), float(time_step.reward), False, False, {}

    def render(self) -> np.ndarray:
        """Draw a picture of the walker, [240, 320, 3] uint8.

        Raises:
            UserError: dm_control was imported without a rendering backend.
        """
        try:
            return self._suite.physics.render(240, 320, camera_id=0)
        except RuntimeError as error:
            raise UserError(
                f"the walker cannot be drawn ({error}); set {_BACKEND}=egl, osmesa or glfw "
                "before the program starts"
            ) from error

    def physics_state(self) -> np.ndarray:
        """Positions and velocities, [18] float64, as ExORL stores them."""
        return self._suite.physics.get_state()


class _Features(NamedTuple):
    """What the tasks' rewards ask of a physics, for n states at once."""

    height: np.ndarray
    upright: np.ndarray
    velocity: np.ndarray

    def torso_height(self) -> np.ndarray:
        return self.height

    def torso_upright(self) -> np.ndarray:
        return self.upright

    def horizontal_velocity(self) -> np.ndarray:
        return self.velocity


def rewards(task: str, physics: np.ndarray, progress: bool = False) -> np.ndarray:
    """Relabel: compute the reward of a task in stored physics states.

    Args:
        task: one of TASKS.
        physics: [n, 18] positions and velocities; in row t + 1 they are those after step t.
        progress: whether to draw a progress bar.

    Returns:
        [n] float32 in [0, 1]: the reward of the step that led to each state.

    Raises:
        UserError: the task is unknown, or the states have another shape or are not finite.
    """
    return all_rewards(physics, (task,), progress)[task]


def all_rewards(
    physics: np.ndarray, tasks: tuple[str, ...] = TASKS, progress: bool = False
) -> dict[str, np.ndarray]:
    """Relabel for several tasks in the time of one; see `rewards`."""
    suites = {task: _load(task) for task in tasks}
    rows = _over_states(physics, _reward_features, 3, "relabelling", progress)
    features = _Features(*rows.T)
    return {
        task: np.asarray(suite.task.get_reward(features), np.float32)
        for task, suite in suites.items()
    }


def observations_of(physics: np.ndarray, progress: bool = False) -> np.ndarray:
    """Compute the observations of stored physics states: [n, 18] -> [n, 24] float32.

    Raises:
        UserError: the states have another shape or are not finite.
    """
    return _over_states(physics, _observation, OBS_DIM, "observing", progress).astype(np.float32)


def _load(task: str) -> control.Environment:
    if task not in TASKS:
        raise UserError(f"unknown task {task!r} of the walker; choose one of {', '.join(TASKS)}")
    options = {"flat_observation": True}
    return walker.SUITE[task](time_limit=float("inf"), environment_kwargs=options)


def _flat(time_step) -> np.ndarray:
    return time_step.observation[control.FLAT_OBSERVATION_KEY]


def _reward_features(suite: control.Environment) -> tuple[float, float, float]:
    physics = suite.physics
    return physics.torso_height(), physics.torso_upright(), physics.horizontal_velocity()


def _observation(suite: control.Environment) -> np.ndarray:
    parts = suite.task.get_observation(suite.physics).values()
    return np.concatenate([np.ravel(part) for part in parts])


def _over_states(physics, function: Callable, width: int, title: str, progress: bool):
    """Evaluate `function` of the environment in each state, [n, width] float64."""
    physics = _checked(physics)
    suite = _load(TASKS[0])
    found = np.empty((len(physics), width))
    bars = progress_bar.progress(len(physics), title) if progress else contextlib.nullcontext()
    with bars as bar:
        for row, state in enumerate(physics):
            _set_state(suite, state)
            found[row] = function(suite)
            if bar is not None and (row + 1) % _PROGRESS_EVERY == 0:
                bar.update(row + 1)
    return found


def _set_state(suite: control.Environment, state: np.ndarray) -> None:
    """Compute what rewards and observations read; `physics.forward` takes eight times as long."""
    model, data = suite.physics.model.ptr, suite.physics.data.ptr
    data.qpos[:], data.qvel[:] = state[: model.nq], state[model.nq :]
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    mujoco.mj_comVel(model, data)
    mujoco.mj_sensorVel(model, data)


def _checked(physics: np.ndarray) -> np.ndarray:
    physics = np.asarray(physics, np.float64)
    if physics.ndim != 2 or physics.shape[1] != STATE_DIM:
        raise UserError(
            f"physics states have shape {physics.shape}, but the walker's have [n, {STATE_DIM}]; "
            "give rows of positions and velocities"
        )
    bad = ~np.isfinite(physics).all(axis=1)
    if bad.any():
        raise UserError(
            f"{bad.sum()} of {len(bad)} physics states are not finite, the first in row "
            f"{bad.argmax()}; repair or drop them"
        )
    return physics


for _task in TASKS:
    gymnasium.register(
        f"mtm_jax/Walker{_task.title()}-v0",
        entry_point=f"{__name__}:Walker",
        max_episode_steps=MAX_EPISODE_STEPS,
        kwargs={"task": _task},
    )
