"""Gives recorded trajectories other rewards."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np

from mtm_jax.data import info as data_info
from mtm_jax.envs import completion
from mtm_jax.types import Trajectories

_LOG = logging.getLogger("mtm_jax")


def as_papers(trajectories: Trajectories) -> Trajectories:
    """Give Adroit's pen and door the papers' rewards; leave everything else as it is."""
    spec = data_info.find_env(trajectories.info.name)
    if spec is None or spec.suite != "adroit" or spec.name.endswith("_dense"):
        return trajectories
    return task_completion(trajectories, spec.name)


def task_completion(trajectories: Trajectories, env_name: str) -> Trajectories:
    """Replace the rewards of an Adroit task: 1 for each step that ends at the goal, otherwise 0.

    The log says how many steps do, and in how many episodes the last step was judged by the state
    before it because the one after it is unknown.

    Args:
        trajectories: from any reader; left as they are.
        env_name: "pen" or "door".

    Returns:
        The same steps; rewards and returns are available where states are.

    Raises:
        UserError: see `completion.completed`.
    """
    ends = np.cumsum(trajectories.lengths) - 1
    unknown = np.isnan(trajectories.final_observations).all(axis=-1)
    done = completion.completed(env_name, trajectories.observations)
    done_finally = completion.completed(env_name, trajectories.final_observations)
    rewards = np.append(done[1:], False).astype(np.float32)
    rewards[ends] = np.where(unknown, done[ends], done_finally)
    relabelled = dataclasses.replace(
        trajectories, rewards=rewards, available=_available(trajectories)
    )
    _report(relabelled, int(unknown.sum()))
    return relabelled


def _available(trajectories: Trajectories) -> dict[str, np.ndarray]:
    available = dict(trajectories.available)
    for name in ("rewards", "returns"):
        available.pop(name, None)
        if "states" in available:
            available[name] = available["states"]
    return available


def _report(relabelled: Trajectories, unknown: int) -> None:
    name, episodes = relabelled.info.name, len(relabelled.lengths)
    _LOG.info(
        "%s: the task is done after %d of %d steps, in %d of %d episodes",
        *(name, relabelled.rewards.sum(), len(relabelled.rewards)),
        *((relabelled.episode_returns > 0).sum(), episodes),
    )
    if unknown:
        _LOG.info(
            "%s: %d of %d episodes do not say what follows their last step, which counts as done "
            "if the task was done before it",
            *(name, unknown, episodes),
        )
