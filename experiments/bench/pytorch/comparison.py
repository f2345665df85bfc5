"""Programs of `experiments.bench` beside the same in plain PyTorch, timed in one loop."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import config_dict

from experiments.bench import decisions, operations, timing, training_steps, workloads
from mtm_jax import tokens
from mtm_jax.config import PretrainConfig

MISSING = (
    "the comparison with PyTorch, which is not installed; `.venv/bin/pip install torch` adds it"
)


def section(
    config: config_dict.ConfigDict, matmuls: timing.Matmuls
) -> Iterator[workloads.Workload]:
    """Time training steps and planned decisions, each in a group of ours and theirs."""
    if not available():
        yield workloads.Workload("PyTorch", [], [MISSING])
        return
    from experiments.bench.pytorch import training as torch_training

    torch_training.prepare()
    for dtype in workloads.dtypes(config):
        groups = [_decision_group(config, width, dtype) for width in config.peer.decisions]
        window = decisions.network_of().config.window
        for size in zip(config.peer.widths, config.peer.batches, strict=True):
            point = training_steps.Point(*size, window)
            settings = training_steps.plain_settings(point, config.encoder_layers, dtype)
            groups.append(_training_group(settings, point, config.training.steps))
        yield workloads.Workload("beside PyTorch", groups)


def available() -> bool:
    """Whether PyTorch can be imported."""
    try:
        import torch  # noqa: F401
    except ImportError:
        return False
    return True


def _training_group(settings: PretrainConfig, point: training_steps.Point, steps: int) -> Sequence:
    dtype = settings.model.compute_dtype
    name = workloads.row_name("peer", "training", dtype, **point._asdict())
    prepared = functools.partial(training_steps.prepare, settings)
    ours = functools.partial(training_steps.steps, prepared, steps, name)
    return [ours, functools.partial(_their_training, settings, steps, name)]


def _their_training(
    settings: PretrainConfig, steps: int, name: dict[str, Any]
) -> workloads.Program:
    from experiments.bench.pytorch import training as torch_training

    data = training_steps.prepare(settings).data
    stats = {m.name: tokens.identity_stats(m.features) for m in settings.model.modalities}
    values = tokens.encode_modalities(settings.model.modalities, stats, data.values)
    values = {m: np.asarray(x) for m, x in values.items()}
    call = torch_training.training(settings, values, np.asarray(data.window_starts), steps)
    counted = operations.training_step(settings.model, settings.batch_size)
    return workloads.Program(name | {"program": "PyTorch"}, call, counted, steps=steps)


def _decision_group(config: config_dict.ConfigDict, width: int, dtype: str) -> Sequence:
    sizes = {"width": width, "encoder_layers": config.encoder_layers, "compute_dtype": dtype}
    network, plan = decisions.network_of(**sizes), config.plan
    point = decisions.Point("m3pc_m", plan.candidates, plan.horizon, 1, True)
    arguments = network, point, plan.history
    return [functools.partial(make, *arguments) for make in (_our_decision, _their_decision)]


def _our_decision(*arguments: Any) -> workloads.Program:
    program = decisions.compile_point(*arguments)
    return program._replace(name=program.name | {"section": "peer"})


def _their_decision(network: Any, point: decisions.Point, history: int) -> workloads.Program:
    from experiments.bench.pytorch import planner as torch_planner

    contexts = decisions.random_arguments(network, point, history)[1]
    context = jax.tree.map(lambda x: x[0], contexts)
    plan = decisions.plan_of(point, history)
    limit = training_steps.LIMIT
    call = torch_planner.decision(network.config, plan, context, limit)
    settings = {"width": network.config.width, "candidates": point.candidates}
    settings |= {"horizon": point.horizon, "environments": 1, "program": "PyTorch"}
    name = workloads.row_name("peer", point.method, network.config.compute_dtype, **settings)
    whole = decisions.multiply_adds(network, point._replace(pruned=False), history)
    return workloads.Program(name, call, whole)
