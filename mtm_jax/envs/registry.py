"""The environments this project knows: ids, dimensions, time limits and reference scores.

Only ids listed here are ever made (`envs.make`); metadata of a data set never chooses one.
"""

from __future__ import annotations

import dataclasses
import difflib
import re

import numpy as np

from mtm_jax.errors import UserError

# An id, or a name of ours with a version, in front of a name.
_VERSIONED = re.compile(r"(?P<base>[a-z]\w*)-v(?P<version>\d+)(?:[-_.](?P<level>.*))?", re.A | re.I)
LEVELS = ("medium", "medium-replay", "medium-expert", "expert")  # of D4RL's locomotion data


@dataclasses.dataclass(frozen=True)
class EnvSpec:
    """One environment family.

    Attributes:
        name: the user's name of it.
        builtin_id: gymnasium id to evaluate in, unless the data were recorded in another of
            `env_ids`; "" where no simulator is supported.
        d4rl_id: the same for data in D4RL's layout (the version with D4RL's reward and friction).
        obs_dim: S.
        action_dim: A.
        max_episode_steps: H_max.
        reference_min, reference_max: returns of score 0 and 100; D4RL's random and expert ones
            where D4RL has the environment with this reward.
        recorded_ids: ids of other simulators or rewards whose recordings this environment reads.
        suite: which library simulates it: gymnasium, adroit, walker or robomimic.
        levels: of the built-in data sets; empty where there are none.
        action_low, action_high: the bound of every action dimension.
    """

    name: str
    builtin_id: str
    d4rl_id: str
    obs_dim: int
    action_dim: int
    max_episode_steps: int
    reference_min: float
    reference_max: float
    recorded_ids: tuple[str, ...] = ()
    suite: str = "gymnasium"
    levels: tuple[str, ...] = ()
    action_low: float = -1.0
    action_high: float = 1.0

    @property
    def env_ids(self) -> tuple[str, ...]:
        """The ids that may be made, the built-in one first."""
        return tuple(i for i in dict.fromkeys((self.builtin_id, self.d4rl_id)) if i)


def _locomotion(name: str, gym_name: str, dims: tuple[int, int], low: float, high: float):
    ids = f"{gym_name}-v5", f"{gym_name}-v4"
    return EnvSpec(name, *ids, *dims, 1000, low, high, levels=LEVELS)


def _adroit(name: str, task: str, dims: tuple[int, int], steps: int, low: float, high: float):
    """The task with the papers' reward, 1 for every step at the goal, and with the dense one.

    The score of the former is the number of such steps, as in table A.2 of MTM. The time limits are
    those of the papers and of D4RL; gymnasium-robotics gives the pen 200 steps.
    """
    dense = f"AdroitHand{task}-v1"
    recorded = (dense, f"AdroitHand{task}Sparse-v1", f"{name}-v0")
    sparse_id = f"mtm_jax/Adroit{task}Completion-v1"
    return (
        EnvSpec(name, sparse_id, sparse_id, *dims, steps, 0.0, 100.0, recorded, suite="adroit"),
        EnvSpec(f"{name}_dense", dense, dense, *dims, steps, low, high, recorded, suite="adroit"),
    )


def _walker(task: str):
    """A task of the ExORL benchmark: rewards in [0, 1] per step, so returns up to 1000."""
    env_id = f"mtm_jax/Walker{task.title()}-v0"
    return EnvSpec(
        f"walker_{task}",
        env_id,
        env_id,
        24,
        6,
        1000,
        0.0,
        1000.0,
        suite="walker",
        levels=("explore",),
    )


def _robomimic(name: str, object_dim: int, task: str):
    """End-effector pose (7), gripper (2) and object, M3PC appendix D; success is the reward."""
    dims = 9 + object_dim, 7
    return EnvSpec(name, "", "", *dims, 500, 0.0, 1.0, (task,), suite="robomimic")


ENVS = {
    spec.name: spec
    for spec in (
        _locomotion("hopper", "Hopper", (11, 3), -20.272305, 3234.3),
        _locomotion("walker2d", "Walker2d", (17, 6), 1.629008, 4592.3),
        _locomotion("halfcheetah", "HalfCheetah", (17, 6), -280.178953, 12135.0),
        *_adroit("pen", "Pen", (45, 24), 100, 96.262799, 3076.8331017826877),
        *_adroit("door", "Door", (39, 28), 200, -56.512833, 2880.5693087298737),
        *(_walker(task) for task in ("stand", "walk", "run")),
        _robomimic("lift", 10, "Lift"),
        _robomimic("can", 14, "PickPlaceCan"),
        _robomimic("square", 14, "NutAssemblySquare"),
    )
}


def _bases() -> dict[str, EnvSpec]:
    """What stands before the version in each id, in lower case, and the names themselves."""
    ids = ((env_id, spec) for spec in ENVS.values() for env_id in spec.env_ids)
    named = {i.rpartition("/")[2].rpartition("-v")[0].lower(): spec for i, spec in ids}
    return named | ENVS


BASES = _bases()


def asked_id(name: str) -> str | None:
    """Find the id that a name starts with: Hopper-v4 in "Hopper-v4" and "hopper-v4-mine".

    Returns:
        An id of the registry; None where the name asks for no version.

    Raises:
        UserError: it asks for a version that is not in the registry.
    """
    match = _VERSIONED.fullmatch(name)
    spec = BASES.get(match["base"].lower()) if match else None
    if spec is None or not spec.env_ids:
        return None
    found = next((i for i in spec.env_ids if i.endswith(f"-v{match['version']}")), None)
    if found is None:
        offered = [i.rpartition("/")[2] for i in spec.env_ids]
        raise UserError(
            f"{name!r} asks for version {match['version']} of {spec.name}, which is not here; "
            f"write {' or '.join((*offered, spec.name))}"
        )
    return found


def split_name(name: str, versions: bool = True) -> tuple[EnvSpec, str]:
    """Split `<env>-<level>` into its environment and any level.

    Args:
        name: an id may stand for the environment, as in "Hopper-v4-medium"; see `asked_id`.
        versions: whether it may; without, only a name of ours.

    Raises:
        UserError: the environment is unknown, or not in the version that is asked for.
    """
    if versions and asked_id(name) is not None:
        match = _VERSIONED.fullmatch(name)
        return BASES[match["base"].lower()], match["level"] or ""
    env, _, level = name.partition("-")
    if env not in ENVS:
        close = difflib.get_close_matches(env.lower(), ENVS, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UserError(
            f"unknown environment {env!r} in {name!r}; choose one of {', '.join(ENVS)}{hint}"
        )
    return ENVS[env], level


def parse_name(name: str) -> tuple[EnvSpec, str]:
    """Split the name of a built-in data set, e.g. "hopper-medium-replay".

    Raises:
        UserError: the environment is unknown, or has no built-in data of this level.
    """
    if name.startswith("custom"):
        raise UserError(f"{name!r} is data of your own; say where they are with SOURCE=PATH")
    spec, level = split_name(name)
    asked = asked_id(name)
    if asked not in (None, spec.builtin_id):
        raise UserError(
            f"{name!r} asks for {asked}, but the built-in data of {spec.name} are recorded in "
            f"{spec.builtin_id}; write {spec.name}-{level or 'LEVEL'}, or name another source"
        )
    if not spec.levels:
        having = ", ".join(env for env, other in ENVS.items() if other.levels)
        raise UserError(
            f"there are no built-in data of {spec.name}, only of {having}; name another source, "
            "such as minari or a path"
        )
    if level not in spec.levels:
        raise UserError(
            f"unknown level {level!r} in {name!r}; choose one of "
            + ", ".join(f"{spec.name}-{known}" for known in spec.levels)
        )
    return spec, level


def spec_of_id(env_id: str) -> EnvSpec:
    """Find the environment that an allowed gymnasium id belongs to.

    Raises:
        UserError: the id is not one of the allowed ones.
    """
    for spec in ENVS.values():
        if env_id in spec.env_ids:
            return spec
    allowed = [i for spec in ENVS.values() for i in spec.env_ids]
    raise UserError(f"environment id {env_id!r} is not allowed; choose one of {', '.join(allowed)}")


def specs_recorded_in(env_id: str) -> tuple[EnvSpec, ...]:
    """Return the environments that read data recorded in `env_id`, the papers' reward first."""
    return tuple(s for s in ENVS.values() if env_id in (*s.recorded_ids, *s.env_ids))


def normalized_score(spec: EnvSpec, returns: np.ndarray) -> np.ndarray:
    """D4RL's normalised score, 100 (R - min) / (max - min)."""
    returns = np.asarray(returns, np.float64)
    return 100.0 * (returns - spec.reference_min) / (spec.reference_max - spec.reference_min)
