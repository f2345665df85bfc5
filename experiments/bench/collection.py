"""Programs of `experiments.bench` that collect data."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from ml_collections import config_dict

from experiments.bench import timing, training_steps, workloads
from mtm_jax.data.builtin import collector, ladders, shard
from mtm_jax.envs import registry


def section(
    config: config_dict.ConfigDict, matmuls: timing.Matmuls
) -> Iterator[workloads.Workload]:
    """Collect hopper-medium with one process and with one per core; their start is included."""
    counts = sorted({1, collector.cores()})
    groups = [[functools.partial(collect, config.collection_steps, n)] for n in counts]
    yield workloads.Workload("collecting hopper-medium", groups)


def collect(steps: int, workers: int) -> workloads.Program:
    """Prepare to collect episodes of the medium actor, without storing them."""
    spec, level = registry.parse_name("hopper-medium")
    ladder = ladders.load(ladders.folder_of(spec), spec)
    path, count = str(ladder.medium.path.resolve()), 4 * collector.cores()
    each = max(steps // count, 1)
    tasks = [
        shard.Task(path, ladder.env_id, training_steps.LIMIT, each, 0, (0, k)) for k in range(count)
    ]
    title = f"collecting hopper-{level}"
    call = functools.partial(collector.collect, tasks, workers, title, progress=False)
    name = workloads.row_name("collection", "collecting", workers=workers)
    return workloads.Program(name, call, decisions=each * count)
