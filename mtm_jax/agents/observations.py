"""Reading what an environment shows: the one place where observations are checked."""

from __future__ import annotations

from typing import Any

import numpy as np

from mtm_jax.agents.pretrained import Pretrained
from mtm_jax.errors import UserError


def one(obs: Any, agent: Pretrained) -> np.ndarray:
    """Read one observation as a user passes it: -> [S] float32.

    Raises:
        UserError: it is not an array of numbers, has another shape, or is not finite.
    """
    if isinstance(obs, tuple) and len(obs) == 2 and isinstance(obs[1], dict):
        raise UserError(
            "the observation is a pair (obs, info), as env.reset() returns; pass obs alone: "
            "obs, info = env.reset()"
        )
    obs = numbers(obs, "the observation")
    expected = agent.stats["states"].mean.shape
    if obs.shape != expected:
        raise UserError(
            f"the observation has shape {obs.shape}, {agent.info.env_id or agent.info.name} has "
            f"{expected}; pass one observation, without a batch axis"
        )
    if not np.isfinite(obs).all():
        first = int(np.argmin(np.isfinite(obs)))
        raise UserError(f"the observation is not finite: dimension {first} is {obs[first]}")
    return obs


def batch(obs: Any, agent: Pretrained) -> np.ndarray:
    """Read the observations of E environments: -> [E, S] float32.

    Raises:
        UserError: the shape is wrong, or a value is not finite; it names environment and dimension.
    """
    obs = numbers(obs, "the observations")
    expected = agent.stats["states"].mean.shape
    if obs.ndim != 2 or obs.shape[1:] != expected:
        raise UserError(
            f"observations have shape {obs.shape}; {agent.info.env_id or agent.info.name} has "
            f"{expected}, behind a first axis for the environments"
        )
    if not np.isfinite(obs).all():
        env, dimension = np.argwhere(~np.isfinite(obs))[0].tolist()
        raise UserError(
            f"the observation of environment {env} is not finite: dimension {dimension} is "
            f"{obs[env, dimension]}; look for the cause in the simulator"
        )
    return obs


def reward(value: Any) -> np.float32:
    """Read the reward of one action, a number or an array that holds exactly one.

    Raises:
        UserError: it is not one finite number.
    """
    found = numbers(value, "the reward")
    if found.size != 1:
        raise UserError(
            f"the reward has shape {found.shape}; pass the one number that the last action earned"
        )
    if not np.isfinite(found).all():
        raise UserError(f"the reward is {found.item()}; it must be finite")
    return np.float32(found.item())


def numbers(value: Any, what: str) -> np.ndarray:
    """Convert real numbers to float32.

    Raises:
        UserError: they are something else, such as a dictionary, text or complex numbers.
    """
    if isinstance(value, dict):
        keys = ", ".join(map(str, value)) or "none"
        raise UserError(
            f"{what} is a dictionary with the keys {keys}; pass an array, such as the entry of "
            "the key that the model was trained on"
        )
    try:
        found = np.asarray(value)
    except ValueError as error:  # rows of different lengths
        raise UserError(f"{what} cannot be read as an array ({error})") from error
    if found.dtype.kind not in "fiub":
        raise UserError(
            f"{what} is of type {type(value).__name__} with elements of dtype {found.dtype}; pass "
            "an array of real numbers"
        )
    return found.astype(np.float32)
