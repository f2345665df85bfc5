"""When the tasks of the Adroit hand are done, told from observations alone."""

from __future__ import annotations

import numpy as np

from mtm_jax.envs import registry
from mtm_jax.errors import UserError

# Where gymnasium-robotics, and D4RL before it, put what the tasks ask for.
_PEN_AXIS, _TARGET_AXIS = slice(33, 36), slice(36, 39)  # unit vectors
_PEN_ERROR = slice(39, 42)  # position of the pen less that of the target, m
_DOOR_HINGE = 28  # rad


def completed(env_name: str, observations: np.ndarray) -> np.ndarray:
    """Tell in which states a task is done.

    It is what the environment says of the step that leads to a state. Observations that were
    rounded to float32 move the thresholds by that rounding, 1e-7 at most; a door that the
    environment calls open stays open.

    Args:
        env_name: a name of the registry's suite "adroit".
        observations: [n, S] of either precision.

    Returns:
        [n] bool; False where an observation is NaN.

    Raises:
        UserError: the environment is no task of the hand, or S is not its own.
    """
    name = env_name.removesuffix("_dense")
    if name not in _TASKS:
        raise UserError(
            f"nothing says when {env_name!r} is done; choose one of {', '.join(_TASKS)}"
        )
    observations = np.asarray(observations, np.float64)
    expected = registry.ENVS[name].obs_dim
    if observations.ndim != 2 or observations.shape[1] != expected:
        raise UserError(
            f"observations of {env_name} have shape {list(observations.shape)}, expected "
            f"[n, {expected}]; name the environment that the data were recorded in"
        )
    return _TASKS[name](observations)


def _pen(observations: np.ndarray) -> np.ndarray:
    distance = np.linalg.norm(observations[:, _PEN_ERROR], axis=-1)
    similarity = np.sum(observations[:, _PEN_AXIS] * observations[:, _TARGET_AXIS], axis=-1)
    return (distance < 0.075) & (similarity > 0.95)


def _door(observations: np.ndarray) -> np.ndarray:
    return observations[:, _DOOR_HINGE] >= 1.35


_TASKS = {"pen": _pen, "door": _door}
