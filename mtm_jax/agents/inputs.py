"""What users and simulators hand in: read and checked here, once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mtm_jax.agents.pretrained import Pretrained
from mtm_jax.errors import UserError


def observations(obs: Any, agent: Pretrained, each: str = "environment") -> np.ndarray:
    """Read a batch of observations: -> [E, S] float32.

    Args:
        obs: one observation a row.
        agent: the model that they are for.
        each: what the rows are called in messages.

    Raises:
        UserError: a shape is wrong, or a value is not finite; it names the row and the dimension.
    """
    obs = numbers(obs, "the observation")
    expected, rows = agent.stats["states"].mean.shape, len(np.atleast_1d(obs))
    if obs.ndim != 2 or obs.shape[1:] != expected:
        raise UserError(
            f"the observation{_of(each, 0, rows)} has shape {obs.shape[1:]}, "
            f"{agent.info.env_id or agent.info.name} has {expected}"
        )
    if not np.isfinite(obs).all():
        row, dimension = np.argwhere(~np.isfinite(obs))[0].tolist()
        raise UserError(
            f"the observation{_of(each, row, rows)} is not finite: dimension {dimension} is "
            f"{obs[row, dimension]}; look for the cause where it was made"
        )
    return obs


def rewards(values: Any) -> np.ndarray:
    """Read the rewards of E environments: -> [E] float32.

    Raises:
        UserError: one is not finite; it names the environment.
    """
    found = numbers(values, "the reward")
    if not np.isfinite(found).all():
        first = int(np.argmin(np.isfinite(found)))
        where = _of("environment", first, len(found))
        raise UserError(f"the reward{where} is {found[first]}; it must be finite")
    return found


def one_reward(value: Any) -> np.ndarray:
    """Read what one action earned, a number or an array of shape () or (1,): -> [1] float32.

    Raises:
        UserError: it is something else.
    """
    found = numbers(value, "the reward")
    if found.shape not in ((), (1,)):
        raise UserError(
            f"the reward has shape {found.shape}; pass the one number that the last action earned"
        )
    return found.reshape(1)


def actions(values: Any, agent: Pretrained) -> np.ndarray:
    """Read a sequence of actions in the environment's units: -> [h, A] float32.

    Raises:
        UserError: the shape is wrong, or a value is not finite.
    """
    found, dims = numbers(values, "the actions"), len(agent.info.action_low)
    if found.ndim != 2 or len(found) == 0 or found.shape[1] != dims:
        raise UserError(
            f"the actions have shape {found.shape}; pass one row of {dims} per step, and at least "
            "one step"
        )
    if not np.isfinite(found).all():
        step, dimension = np.argwhere(~np.isfinite(found))[0].tolist()
        raise UserError(
            f"the actions are not finite: step {step}, dimension {dimension} is "
            f"{found[step, dimension]}"
        )
    return found


def numbers(value: Any, what: str) -> np.ndarray:
    """Convert real numbers to float32.

    Raises:
        UserError: they are something else, such as a dictionary, text or complex numbers.
    """
    if isinstance(value, tuple) and value and isinstance(value[-1], Mapping):
        raise UserError(
            f"{what} is a tuple that ends with a dictionary, such as env.reset() and env.step() "
            "return; unpack it first: obs, info = env.reset()"
        )
    if isinstance(value, Mapping):
        keys = ", ".join(map(str, value)) or "none"
        raise UserError(
            f"{what} is a dictionary with the keys {keys}; pass an array, such as the entry that "
            "the model was trained on"
        )
    try:
        found = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"{what} cannot be read as an array ({error})") from error
    if found.dtype.kind not in "fiub":
        raise UserError(
            f"{what}: expected real numbers, got {type(value).__name__} of dtype {found.dtype}"
        )
    with np.errstate(over="ignore"):  # becomes infinite, which is refused with its place
        return found.astype(np.float32)


def _of(each: str, row: int, rows: int) -> str:
    return f" of {each} {row}" if rows > 1 else ""
