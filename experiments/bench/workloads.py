"""What `experiments.bench` times: programs, the names of their rows, and how they are compiled."""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from ml_collections import config_dict

# What settings of rows may be; time is fitted against each of them.
AXES = ("width", "batch_size", "window", "candidates", "horizon", "environments", "workers")
AXES += ("seeds",)

Call = Callable[[], Any]


class Program(NamedTuple):
    """Something compiled that can be timed."""

    name: dict[str, Any]  # what tells its row from others, see `name`
    call: Call
    multiply_adds: int = 0  # of the matrix products of one step
    decisions: int = 1  # that one step makes at once
    steps: int = 1  # of one call, one after the other
    bytes: int | None = None  # temporaries and arguments of one call, where they are known


class Work(NamedTuple):
    """Programs that are compiled together."""

    title: str
    groups: list[list[Callable[[], Program]]]  # those of a group are timed in one loop
    left_out: Sequence[str] = ()  # what is missing, and why


def name(section: str, what: str, compute_dtype: str = "float32", **more: Any) -> dict[str, Any]:
    """Name a row: its settings, and `program` where there is another one for the same thing."""
    return {
        "section": section,
        "what": what,
        "program": "",
        "compute_dtype": compute_dtype,
        **dict.fromkeys(AXES),
        **more,
    }


def dtypes(config: config_dict.ConfigDict) -> tuple[str, ...]:
    """Resolve the compute types: on accelerators bfloat16, as in training, on the CPU float32."""
    usual = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    chosen = (usual if dtype == "auto" else dtype for dtype in config.compute_dtypes)
    return tuple(dict.fromkeys(chosen))


def compile_call(function: Callable, arguments: tuple) -> tuple[Call, int | None]:
    """Compile a function for its arguments; return it with its bytes, see `Program`."""
    compiled = jax.jit(function).lower(*arguments).compile()
    return lambda: compiled(*arguments), _bytes(compiled)


def compile_updates(run: Callable, state: Any, data: Any) -> tuple[Call, int | None]:
    """Compile `run(state, data) -> state`, which every call continues; the state is donated."""
    compiled = jax.jit(run, donate_argnums=0).lower(state, data).compile()
    held = [state]

    def call() -> Any:
        held[0] = compiled(held[0], data)
        return held[0]

    return call, _bytes(compiled)


def _bytes(compiled: jax.stages.Compiled) -> int | None:
    memory = compiled.memory_analysis()
    if memory is None:
        return None
    return memory.temp_size_in_bytes + memory.argument_size_in_bytes


def compile_all(work: Work) -> list[list[Program]]:
    """Compile the programs of a work, on as many threads as there are cores."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:
        futures = [[threads.submit(make) for make in group] for group in work.groups]
        return [[future.result() for future in group] for group in futures]
