"""What `experiments.bench` times: compiled programs, and the names of their rows."""

from __future__ import annotations

import concurrent.futures
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from ml_collections import config_dict

# Settings that tell rows apart; the summary fits how the time grows with each of them.
AXES = ("width", "batch_size", "window", "candidates", "horizon", "environments", "workers")
AXES += ("seeds",)

Call = Callable[[], Any]


class Cost(NamedTuple):
    """What a compiled program takes besides time."""

    bytes: int | None = None  # temporaries and arguments of one call, where known
    seconds: float | None = None  # of compiling, beside the other programs of the workload


class Program(NamedTuple):
    """A compiled program that can be timed."""

    name: dict[str, Any]  # identifies its row, see `row_name`
    call: Call
    multiply_adds: int = 0  # of the matmuls of one step
    decisions: int = 1  # made by one step at once
    steps: int = 1  # computed by one call, one after the other
    cost: Cost = Cost()


Make = Callable[[], Program]  # compiles a program


class Workload(NamedTuple):
    """Programs that are compiled together."""

    title: str
    groups: list[list[Make]]  # programs of a group are timed in one loop
    left_out: Sequence[str] = ()  # what is not timed, and why


def row_name(
    section: str, what: str, compute_dtype: str = "float32", **settings: Any
) -> dict[str, Any]:
    """Name a row: what is timed, its settings, and `program` where there is an alternative."""
    return {
        "section": section,
        "what": what,
        "program": "",
        "compute_dtype": compute_dtype,
        **dict.fromkeys(AXES),
        **settings,
    }


def dtypes(config: config_dict.ConfigDict) -> tuple[str, ...]:
    """Resolve the compute types; "auto" is that of training: bfloat16 on accelerators only."""
    usual = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    chosen = (usual if dtype == "auto" else dtype for dtype in config.compute_dtypes)
    return tuple(dict.fromkeys(chosen))


def compile_call(function: Callable, arguments: tuple) -> tuple[Call, Cost]:
    """Compile a function for its arguments; return the call and its cost."""
    compiled, cost = _compile(jax.jit(function), arguments)
    return lambda: compiled(*arguments), cost


def compile_updates(run: Callable, state: Any, data: Any) -> tuple[Call, Cost]:
    """Compile `run(state, data) -> state`; each call continues the last, with the state donated."""
    compiled, cost = _compile(jax.jit(run, donate_argnums=0), (state, data))
    held = [state]

    def call() -> Any:
        held[0] = compiled(held[0], data)
        return held[0]

    return call, cost


def _compile(jitted: Any, arguments: tuple) -> tuple[jax.stages.Compiled, Cost]:
    lowered = jitted.lower(*arguments)
    started = time.perf_counter()
    compiled = lowered.compile()
    seconds, memory = time.perf_counter() - started, compiled.memory_analysis()
    if memory is None:
        return compiled, Cost(None, seconds)
    return compiled, Cost(memory.temp_size_in_bytes + memory.argument_size_in_bytes, seconds)


def compile_all(workload: Workload) -> list[list[Program]]:
    """Compile the programs of a workload, on as many threads as there are cores."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:
        futures = [[threads.submit(make) for make in group] for group in workload.groups]
        return [[future.result() for future in group] for group in futures]
