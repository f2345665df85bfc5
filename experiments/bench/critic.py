"""Programs of `experiments.bench` that train a critic and collect data."""

from __future__ import annotations

import functools

from ml_collections import config_dict

from experiments.bench import operations
from experiments.bench import programs as bench_programs
from experiments.bench import training as bench_training
from mtm_jax import tokens
from mtm_jax.config import CriticConfig
from mtm_jax.data.builtin import collector, ladders, shard
from mtm_jax.envs import registry
from mtm_jax.training import dataset, iql

_UPDATES = 50  # of a call


def works(
    config: config_dict.ConfigDict, products: bench_training.Products
) -> bench_training.Works:
    """IQL updates: batches at the first width, widths at the first batch."""
    widths, batches = config.critic.widths, config.critic.batches
    sizes = [(widths[0], n) for n in batches] + [(width, batches[0]) for width in widths]
    groups = [[functools.partial(updates, *size)] for size in dict.fromkeys(sizes)]
    yield bench_programs.Work("critic", groups)


def updates(width: int, batch_size: int) -> bench_programs.Program:
    """Compile updates of a critic with two hidden layers."""
    settings = CriticConfig(hidden=(width, width), batch_size=batch_size)
    dims = {m.name: m.features for m in bench_training.MODALITIES}
    sizes = dims["states"], dims["actions"]
    data = dataset.make_dataset(bench_training.trajectories(), 1)
    trainer = iql.make_trainer(settings, *sizes, tokens.identity_stats(sizes[0]))
    call, memory = bench_training.compile_trainer(trainer, data, _UPDATES)
    name = bench_programs.name("critic", "IQL update", width=width, batch_size=batch_size)
    count = operations.critic_update(settings, *sizes)
    return bench_programs.Program(name, call, count, steps=_UPDATES, bytes=memory)


def collection_works(
    config: config_dict.ConfigDict, products: bench_training.Products
) -> bench_training.Works:
    """Collecting hopper-medium by one process and by one per core, their start included."""
    counts = sorted({1, collector.cores()})
    groups = [[functools.partial(collection, config.collection_steps, n)] for n in counts]
    yield bench_programs.Work("collecting hopper-medium", groups)


def collection(steps: int, workers: int) -> bench_programs.Program:
    """Prepare to collect with the medium actor; nothing is stored."""
    spec, level = registry.parse_name("hopper-medium")
    ladder = ladders.load(ladders.folder_of(spec), spec)
    path, count = str(ladder.medium.path.resolve()), 4 * collector.cores()
    each = max(steps // count, 1)
    tasks = [
        shard.Task(path, ladder.env_id, bench_training.LIMIT, each, 0, (0, k)) for k in range(count)
    ]
    title = f"collecting hopper-{level}"
    call = functools.partial(collector.collect, tasks, workers, title, progress=False)
    name = bench_programs.name("collection", "collecting", workers=workers)
    return bench_programs.Program(name, call, decisions=each * count)
