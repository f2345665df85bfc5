"""Makes environments, from the ids of the registry only."""

from __future__ import annotations

import importlib
import sys
import warnings

import gymnasium

from mtm_jax.envs import registry
from mtm_jax.errors import UserError

# Suite -> the module that registers its ids with gymnasium, and the extra that it needs.
_SUITES = {
    "adroit": ("mtm_jax.envs.adroit", "adroit"),
    "walker": ("mtm_jax.envs.walker_tasks", "walker"),
}
_NO_LABMAZE = (3, 13)  # first Python for which setup.cfg leaves the extra of the walker out


def make(env_id: str, **kwargs) -> gymnasium.Env:
    """Make one environment; arguments go to `gymnasium.make`.

    Raises:
        UserError: the id is not in the registry, or the library that simulates it is missing.
    """
    with _allowed(env_id):
        return gymnasium.make(env_id, disable_env_checker=True, **kwargs)


def make_vec(env_id: str, count: int, **kwargs) -> gymnasium.vector.VectorEnv:
    """Make `count` environments that are stepped together, in this process.

    Raises:
        UserError: see `make`.
    """
    with _allowed(env_id):
        return gymnasium.make_vec(env_id, count, vectorization_mode="sync", **kwargs)


def without_falls(env_id: str) -> dict[str, bool]:
    """Return the argument of `make` with which an episode goes on where the robot is unhealthy.

    It is empty for environments that never end an episode for that.
    """
    ends = registry.spec_of_id(env_id).name in ("hopper", "walker2d")
    return {"terminate_when_unhealthy": False} if ends else {}


def load_suite(spec: registry.EnvSpec) -> None:
    """Import what simulates an environment.

    Raises:
        UserError: its library is missing.
    """
    if spec.suite not in _SUITES:
        return
    module, extra = _SUITES[spec.suite]
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        remedy = f"run `pip install 'mtm_jax[{extra}]'`"
        if extra == "walker" and sys.version_info >= _NO_LABMAZE:
            remedy = "it asks for labmaze, which has no wheels for this Python: use Python 3.12"
        raise UserError(
            f"{spec.name} needs {error.name}, which is not installed; {remedy}"
        ) from error


def _allowed(env_id: str) -> warnings.catch_warnings:
    """Load what the id needs; return a context without the warning about D4RL's older ids."""
    load_suite(registry.spec_of_id(env_id))
    return warnings.catch_warnings(action="ignore", category=DeprecationWarning)
