"""The environments this project knows: ids, dimensions, time limits and reference scores.

Only ids listed here are ever passed to `gymnasium.make`; metadata of a data set never chooses one.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from mtm_jax.errors import UserError

LEVELS = ("medium", "medium-replay", "medium-expert", "expert")


@dataclasses.dataclass(frozen=True)
class EnvSpec:
    """One environment family.

    Attributes:
        name: the user's name of it.
        builtin_id: gymnasium id of the built-in data and its evaluation.
        d4rl_id: id that continues the version D4RL was recorded with (same reward and friction).
        obs_dim: S.
        action_dim: A.
        action_low, action_high: the bound of every action dimension.
        max_episode_steps: H_max.
        reference_min, reference_max: D4RL's random and expert returns (score 0 and 100).
    """

    name: str
    builtin_id: str
    d4rl_id: str
    obs_dim: int
    action_dim: int
    max_episode_steps: int
    reference_min: float
    reference_max: float
    action_low: float = -1.0
    action_high: float = 1.0


ENVS = {
    spec.name: spec
    for spec in (
        EnvSpec("hopper", "Hopper-v5", "Hopper-v4", 11, 3, 1000, -20.272305, 3234.3),
        EnvSpec("walker2d", "Walker2d-v5", "Walker2d-v4", 17, 6, 1000, 1.629008, 4592.3),
        EnvSpec(
            "halfcheetah", "HalfCheetah-v5", "HalfCheetah-v4", 17, 6, 1000, -280.178953, 12135.0
        ),
    )
}


def parse_name(name: str) -> tuple[EnvSpec, str]:
    """Split `<env>-<level>`, e.g. "hopper-medium-replay", into its environment and level.

    Raises:
        UserError: the environment or the level is unknown.
    """
    env, _, level = name.partition("-")
    if env not in ENVS:
        raise UserError(f"unknown environment {env!r} in {name!r}; choose one of {', '.join(ENVS)}")
    if level not in LEVELS:
        raise UserError(
            f"unknown level {level!r} in {name!r}; choose one of "
            + ", ".join(f"{env}-{known}" for known in LEVELS)
        )
    return ENVS[env], level


def spec_of_id(env_id: str) -> EnvSpec:
    """Find the environment that a gymnasium id belongs to.

    Raises:
        UserError: the id is not one of the allowed ones.
    """
    for spec in ENVS.values():
        if env_id in (spec.builtin_id, spec.d4rl_id):
            return spec
    allowed = [i for spec in ENVS.values() for i in (spec.builtin_id, spec.d4rl_id)]
    raise UserError(f"environment id {env_id!r} is not allowed; choose one of {', '.join(allowed)}")


def normalized_score(spec: EnvSpec, returns: np.ndarray) -> np.ndarray:
    """D4RL's normalised score, 100 (R - min) / (max - min)."""
    returns = np.asarray(returns, np.float64)
    return 100.0 * (returns - spec.reference_min) / (spec.reference_max - spec.reference_min)
