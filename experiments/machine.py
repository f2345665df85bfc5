"""What the machine can do, so that a time means something elsewhere."""

from __future__ import annotations

import os
import time

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from mtm_jax.envs import make


def matrix_product_rate(size: int = 1024, repeats: int = 20) -> float:
    """Measure float32 matrix products of `size` squared, in GFLOP/s."""
    x = jnp.ones((size, size))
    product = jax.jit(lambda a: a @ a)
    product(x).block_until_ready()
    started = time.perf_counter()
    for _ in range(repeats):
        y = product(x)
    y.block_until_ready()
    return 2e-9 * size**3 * repeats / (time.perf_counter() - started)


def simulation_rate(env_id: str, steps: int = 5000) -> float | None:
    """Measure MuJoCo alone on one core under random actions, in environment steps per second.

    None where the environment does not show its simulation.
    """
    env = make.make(env_id).unwrapped
    if not hasattr(env, "frame_skip"):
        return None
    actions = np.random.default_rng(0).uniform(-1.0, 1.0, (steps, env.model.nu))
    started = time.perf_counter()
    for k, action in enumerate(actions):
        if k % 100 == 0:  # lying on the ground costs other than moving
            mujoco.mj_resetData(env.model, env.data)
        env.data.ctrl[:] = action
        mujoco.mj_step(env.model, env.data, nstep=env.frame_skip)
    return steps / (time.perf_counter() - started)


def describe() -> str:
    """Name the device, with its present matrix-product rate."""
    device = jax.devices()[0]
    cores = f"{os.cpu_count()} cores, " if device.platform == "cpu" else ""
    return f"{device.device_kind} ({cores}{matrix_product_rate():.0f} GFLOP/s in float32 products)"
