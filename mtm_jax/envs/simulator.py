"""The state of a simulator, to the last bit: what it takes to continue an episode elsewhere."""

from __future__ import annotations

import gymnasium
import mujoco
import numpy as np

from mtm_jax.errors import UserError

_INTEGRATION = mujoco.mjtState.mjSTATE_INTEGRATION  # also what the solver starts from
_WORD = 64
_MASK = (1 << _WORD) - 1


def physics_state(env: gymnasium.Env) -> np.ndarray:
    """Read time, positions, velocities, controls and the solver's warm start, [n] float64.

    Raises:
        UserError: it is no MuJoCo environment.
    """
    model, data, _ = _physics(env)
    state = np.empty(mujoco.mj_stateSize(model, _INTEGRATION))
    mujoco.mj_getState(model, data, state, _INTEGRATION)
    return state


def set_physics_state(env: gymnasium.Env, state: np.ndarray) -> None:
    """Put an environment that has been reset into a state that `physics_state` read."""
    model, data, derive = _physics(env)
    mujoco.mj_setState(model, data, np.asarray(state, np.float64), _INTEGRATION)
    if derive:
        mujoco.mj_step1(model, data)


def _physics(env: gymnasium.Env) -> tuple[mujoco.MjModel, mujoco.MjData, bool]:
    """Model and data; and whether a step starts from what is derived from the state."""
    env = env.unwrapped
    if hasattr(env, "_suite"):  # dm_control's
        return env._suite.physics.model.ptr, env._suite.physics.data.ptr, True
    if hasattr(env, "model") and hasattr(env, "data"):
        return env.model, env.data, False
    raise UserError(f"the state of {type(env).__name__} cannot be saved; it is not MuJoCo's")


def generator_state(generator: np.random.Generator) -> np.ndarray:
    """Read a generator (PCG64), [6] uint64."""
    full = generator.bit_generator.state
    state, inc = full["state"]["state"], full["state"]["inc"]
    words = [state >> _WORD, state & _MASK, inc >> _WORD, inc & _MASK]
    return np.array([*words, full["has_uint32"], full["uinteger"]], np.uint64)


def set_generator_state(generator: np.random.Generator, words: np.ndarray) -> None:
    """Put a generator (PCG64) into a state that `generator_state` read."""
    high, low, inc_high, inc_low, has_uint32, uinteger = (int(w) for w in words)
    generator.bit_generator.state = {
        "bit_generator": "PCG64",
        "state": {"state": high << _WORD | low, "inc": inc_high << _WORD | inc_low},
        "has_uint32": has_uint32,
        "uinteger": uinteger,
    }
