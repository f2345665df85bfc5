"""Timing of calls that alternate with a matmul, so that a machine whose speed drifts slows both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench import workloads
from experiments.bench.workloads import Call, Program

# Sizes of the square matmuls among which one that reaches the peak rate is sought.
_SIZES = {"cpu": (512, 1024, 2048)}
_SIZES_OF_ACCELERATORS = (2048, 4096, 8192)
_NEAR_PEAK = 0.95
_LONG = 1.0  # s
_FEWEST = 3  # rounds that count, however long they are


class Matmul(NamedTuple):
    """A square matmul, whose rate the programs are compared with."""

    size: int
    call: Call
    peak: float = 0.0  # GFLOP/s at which it was chosen

    def rate(self, seconds: float) -> float:
        """Convert the time of a call to GFLOP/s."""
        return 2e-9 * self.size**3 / seconds


Matmuls = Mapping[str, Matmul]  # compute type -> matmul


def find_matmul(dtype: str = "float32", sizes: Sequence[int] = (), repeats: int = 3) -> Matmul:
    """Find the smallest matmul that comes near the best rate.

    Args:
        dtype: of the factors.
        sizes: to choose among; by default those that suit the device.
        repeats: calls of each.
    """
    sizes = sizes or _SIZES.get(jax.default_backend(), _SIZES_OF_ACCELERATORS)
    found = []
    for size in sizes:
        x = jnp.ones((size, size), dtype)
        matmul = Matmul(size, workloads.compile_call(lambda a: a @ a, (x,))[0])
        times = alternate([matmul.call], 0.0, repeats)[:, 0]
        found.append(matmul._replace(peak=matmul.rate(float(np.median(times)))))
    best = max(matmul.peak for matmul in found)
    return next(matmul for matmul in found if matmul.peak >= _NEAR_PEAK * best)


def alternate(
    calls: Sequence[Call], seconds: float, repeats: int, patience: float = float("inf")
) -> np.ndarray:
    """Time calls in turn, round after round: [rounds, calls] seconds.

    The first round warms up and does not count, unless it is long.

    Args:
        calls: what to time.
        seconds: shortest duration of all rounds together.
        repeats: smallest number of rounds.
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
    matmul: Matmul,
    seconds: float,
    repeats: int,
    patience: float = float("inf"),
) -> list[dict[str, Any]]:
    """Time programs in one loop with a matmul; return a row for each.

    `ratio_to_first` is the median over the rounds of the time relative to the first program's;
    None for the first itself.
    """
    calls = [p.call for p in programs] + [matmul.call]
    times = alternate(calls, seconds, repeats, patience)
    rate = matmul.rate(float(np.median(times[:, -1])))
    steps = times[:, :-1] / [p.steps for p in programs]
    return [
        program.name | _figures(program, steps[:, k], steps[:, 0] if k else None, rate)
        for k, program in enumerate(programs)
    ]


def _figures(
    program: Program, steps: np.ndarray, first: np.ndarray | None, rate: float
) -> dict[str, Any]:
    """Summarise the times of one program's steps, [rounds] seconds."""
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
        "bytes": program.cost.bytes,
        "compile_seconds": program.cost.seconds,
        "ratio_to_first": None if first is None else float(np.median(steps / first)),
    }


def _seconds(call: Call) -> float:
    started = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - started
