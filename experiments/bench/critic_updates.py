"""Programs of `experiments.bench` that train a critic."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from ml_collections import config_dict

from experiments.bench import operations, timing, training_steps, workloads
from mtm_jax import tokens
from mtm_jax.config import CriticConfig
from mtm_jax.training import dataset, iql, program

_UPDATES = 50  # per call


def section(
    config: config_dict.ConfigDict, matmuls: timing.Matmuls
) -> Iterator[workloads.Workload]:
    """Vary the batch size at the first width and the width at the first batch size."""
    widths, batches = config.critic.widths, config.critic.batches
    sizes = [(widths[0], n) for n in batches] + [(width, batches[0]) for width in widths]
    groups = [[functools.partial(updates, *size)] for size in dict.fromkeys(sizes)]
    yield workloads.Workload("critic", groups)


def updates(width: int, batch_size: int) -> workloads.Program:
    """Compile IQL updates of a critic with two hidden layers."""
    settings = CriticConfig(hidden=(width, width), batch_size=batch_size)
    dims = {m.name: m.features for m in training_steps.MODALITIES}
    sizes = dims["states"], dims["actions"]
    data = dataset.make_dataset(training_steps.trajectories(), 1)
    training = iql.make_training(settings, *sizes, tokens.identity_stats(sizes[0]))
    compiled = program.make_program(training)
    call, cost = training_steps.compile_program(compiled, data, _UPDATES)
    name = workloads.row_name("critic", "IQL update", width=width, batch_size=batch_size)
    count = operations.critic_update(settings, *sizes)
    return workloads.Program(name, call, count, steps=_UPDATES, cost=cost)
