"""Timing of calls in alternation with matrix products, so that a drifting machine slows both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench import workloads
from experiments.bench.workloads import Call, Program

# Sides of the square products among which the one that reaches the peak is found.
_SIZES = {"cpu": (512, 1024, 2048)}
_SIZES_OF_ACCELERATORS = (2048, 4096, 8192)
_NEAR_PEAK = 0.95
_LONG = 1.0  # s
_FEWEST = 3  # rounds that count, however long they are


class Product(NamedTuple):
    """A square matrix product."""

    size: int
    call: Call
    peak: float = 0.0  # GFLOP/s that it was chosen by

    def rate(self, seconds: float) -> float:
        """Give GFLOP/s."""
        return 2e-9 * self.size**3 / seconds


def find_product(dtype: str = "float32", sizes: Sequence[int] = (), repeats: int = 3) -> Product:
    """Find the smallest product that comes near the best rate.

    Args:
        dtype: of the factors.
        sizes: to choose among; by default what suits the device.
        repeats: of each.
    """
    sizes = sizes or _SIZES.get(jax.default_backend(), _SIZES_OF_ACCELERATORS)
    found = []
    for size in sizes:
        x = jnp.ones((size, size), dtype)
        product = Product(size, workloads.compile_call(lambda a: a @ a, (x,))[0])
        times = alternate([product.call], 0.0, repeats)[:, 0]
        found.append(product._replace(peak=product.rate(float(np.median(times)))))
    best = max(product.peak for product in found)
    return next(product for product in found if product.peak >= _NEAR_PEAK * best)


def alternate(
    calls: Sequence[Call], seconds: float, repeats: int, patience: float = float("inf")
) -> np.ndarray:
    """Time calls in turn, round after round: [rounds, calls] seconds.

    The first round is not counted, unless it is so long that no warming up matters.

    Args:
        calls: what to time.
        seconds: to go on for.
        repeats: rounds at least.
        patience: seconds after which three rounds are enough.
    """
    started = time.perf_counter()
    first = [_seconds(call) for call in calls]
    rounds = [first] if sum(first) > _LONG else []

    def enough() -> bool:
        passed = time.perf_counter() - started
        if passed >= patience and len(rounds) >= _FEWEST:
            return True
        return len(rounds) >= repeats and passed >= seconds

    while not enough():
        rounds.append([_seconds(call) for call in calls])
    return np.array(rounds)


def measure(
    programs: Sequence[Program],
    product: Product,
    seconds: float,
    repeats: int,
    patience: float = float("inf"),
) -> list[dict[str, Any]]:
    """Time programs in one loop with a matrix product; one row for each.

    `ratio_to_first` compares steps with those of the first program round by round, where there are
    several.
    """
    calls = [p.call for p in programs] + [product.call]
    times = alternate(calls, seconds, repeats, patience)
    rate = product.rate(float(np.median(times[:, -1])))
    steps = times[:, :-1] / [p.steps for p in programs]
    return [
        program.name | _figures(program, steps[:, k], steps[:, 0] if k else None, rate)
        for k, program in enumerate(programs)
    ]


def _figures(
    program: Program, steps: np.ndarray, first: np.ndarray | None, rate: float
) -> dict[str, Any]:
    """Say what one program's steps, [rounds] seconds, come to."""
    median = statistics.median(steps)
    achieved = 2e-9 * program.multiply_adds / median
    return {
        "calls": len(steps),
        "steps_of_a_call": program.steps,
        "seconds": median,
        "per_second": program.decisions / median,
        "multiply_adds": program.multiply_adds,
        "gflops": achieved,
        "product_gflops": rate,
        "share": achieved / rate,
        "bytes": program.bytes,
        "ratio_to_first": None if first is None else float(np.median(steps / first)),
    }


def _seconds(call: Call) -> float:
    started = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - started
