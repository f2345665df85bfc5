"""Timing of calls in alternation with matrix products, so that a drifting machine slows both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Sides of the square products among which the one that reaches the peak is found.
_SIZES = {"cpu": (512, 1024, 2048)}
_SIZES_OF_ACCELERATORS = (2048, 4096, 8192)
_NEAR_PEAK = 0.95
_LONG = 1.0  # s

Call = Callable[[], Any]


class Program(NamedTuple):
    """Something compiled that can be timed."""

    name: dict[str, Any]  # what tells its row from others
    call: Call
    multiply_adds: int  # of its matrix products
    decisions: int = 1  # of one call
    temporary_bytes: int = 0


class Product(NamedTuple):
    """A square float32 matrix product."""

    size: int
    call: Call

    def rate(self, seconds: float) -> float:
        """Give GFLOP/s."""
        return 2e-9 * self.size**3 / seconds


def compile_call(function: Callable, arguments: tuple) -> tuple[Call, int]:
    """Compile a function for its arguments; return it with the bytes of its temporaries."""
    compiled = jax.jit(function).lower(*arguments).compile()
    memory = compiled.memory_analysis()
    return lambda: compiled(*arguments), getattr(memory, "temp_size_in_bytes", 0)


def find_product(sizes: Sequence[int] = (), repeats: int = 3) -> tuple[Product, float]:
    """Find the smallest product that comes near the best rate; return it with that rate.

    Args:
        sizes: to choose among; by default what suits the device.
        repeats: of each.
    """
    sizes = sizes or _SIZES.get(jax.default_backend(), _SIZES_OF_ACCELERATORS)
    found = []
    for size in sizes:
        x = jnp.ones((size, size))
        product = Product(size, compile_call(lambda a: a @ a, (x,))[0])
        times = alternate([product.call], 0.0, repeats)[:, 0]
        found.append((product, product.rate(float(np.median(times)))))
    best = max(rate for _, rate in found)
    return next((p, rate) for p, rate in found if rate >= _NEAR_PEAK * best)


def alternate(calls: Sequence[Call], seconds: float, repeats: int) -> np.ndarray:
    """Time calls in turn, round after round: [rounds, calls] seconds.

    The first round is not counted, unless it is so long that no warming up matters.

    Args:
        calls: what to time.
        seconds: to go on for.
        repeats: rounds at least.
    """
    started = time.perf_counter()
    first = [_seconds(call) for call in calls]
    rounds = [first] if sum(first) > _LONG else []
    while len(rounds) < repeats or time.perf_counter() - started < seconds:
        rounds.append([_seconds(call) for call in calls])
    return np.array(rounds)


def measure(
    programs: Sequence[Program], product: Product, seconds: float, repeats: int
) -> list[dict[str, Any]]:
    """Time programs in one loop with a matrix product; one row for each.

    `ratio_to_first` compares with the first program round by round, where there are several.
    """
    times = alternate([p.call for p in programs] + [product.call], seconds, repeats)
    rate = product.rate(float(np.median(times[:, -1])))
    rows = []
    for k, program in enumerate(programs):
        median = statistics.median(times[:, k])
        achieved = 2e-9 * program.multiply_adds / median
        ratio = float(np.median(times[:, k] / times[:, 0])) if k else None
        rows.append(
            program.name
            | {
                "calls": len(times),
                "seconds": median,
                "per_second": program.decisions / median,
                "multiply_adds": program.multiply_adds,
                "gflops": achieved,
                "product_gflops": rate,
                "share": achieved / rate,
                "ratio_to_first": ratio,
            }
        )
    return rows


def _seconds(call: Call) -> float:
    started = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - started
