"""What the machine can do, so that a time means something elsewhere."""

from __future__ import annotations

import os
import time

import jax
import jax.numpy as jnp


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


def describe() -> str:
    """Name the device, with its present matrix-product rate."""
    device = jax.devices()[0]
    cores = f"{os.cpu_count()} cores, " if device.platform == "cpu" else ""
    return f"{device.device_kind} ({cores}{matrix_product_rate():.0f} GFLOP/s in float32 products)"
