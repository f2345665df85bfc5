"""What the machine can do, so that a time means something elsewhere."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from mtm_jax.envs import make

_STRETCH = 100  # steps until rounding has changed the trajectory


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


def peak_memory() -> dict[str, float]:
    """Measure the most memory that was in use at once, in GB, under the name of what was measured.

    On an accelerator that is the first local device's, arrays and compiled programs; on the CPU
    the resident memory of this process, libraries included.
    """
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return {"peak_device_memory_gb": 1e-9 * stats["peak_bytes_in_use"]}
    unit = 1.0 if sys.platform == "darwin" else 1024.0
    return {
        "peak_process_memory_gb": 1e-9 * unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    }


def say_memory(peak: Mapping[str, float]) -> str:
    """Write what `peak_memory` measured as a sentence."""
    return "; ".join(
        f"{name.removesuffix('_gb').replace('_', ' ')} {gb:.2f} GB" for name, gb in peak.items()
    )


def simulation_rate(
    env_id: str, observations: np.ndarray, actions: np.ndarray, stretches: int = 50
) -> float | None:
    """Measure MuJoCo alone on one core where recorded data were, in environment steps per second.

    Stretches of 100 steps are simulated again from recorded states with the recorded actions:
    how many contacts there are decides what a step costs.

    Args:
        env_id: a locomotion environment of gymnasium; others do not show their state: None.
        observations: [N, S], all coordinates but the first, then the velocities.
        actions: [N, A] in the environment's units.
        stretches: how many, at evenly spaced rows.
    """
    env = make.make(env_id).unwrapped
    if not hasattr(env, "frame_skip"):
        return None
    env.reset(seed=0)
    length = min(_STRETCH, len(actions))
    starts = np.linspace(0, len(actions) - length, stretches).astype(int)
    started = time.perf_counter()
    for start in starts:
        coordinates, velocities = np.split(observations[start].astype(float), [env.model.nq - 1])
        env.set_state(np.append(0.0, coordinates), velocities)
        for action in actions[start : start + length]:
            env.data.ctrl[:] = action
            mujoco.mj_step(env.model, env.data, nstep=env.frame_skip)
    return stretches * length / (time.perf_counter() - started)


def describe() -> str:
    """Name the device, with its present matrix-product rate."""
    device = jax.devices()[0]
    cores = f"{os.cpu_count()} cores, " if device.platform == "cpu" else ""
    several = f"{jax.device_count()} x " if jax.device_count() > 1 else ""
    rate = f"{matrix_product_rate():.0f} GFLOP/s in float32 products"
    return f"{several}{device.device_kind} ({cores}{rate})"
