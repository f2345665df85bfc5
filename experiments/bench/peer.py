"""Our programs beside the same in plain PyTorch, in one loop: the row of PyTorch has the ratio."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import config_dict

from experiments.bench import operations
from experiments.bench import planning as bench_planning
from experiments.bench import programs as bench_programs
from experiments.bench import training as bench_training
from mtm_jax import tokens
from mtm_jax.config import PretrainConfig

MISSING = (
    "the comparison with PyTorch, which is not installed; `.venv/bin/pip install torch` adds it"
)


def works(
    config: config_dict.ConfigDict, products: bench_training.Products
) -> bench_training.Works:
    """Training steps and planned decisions, each a group of ours and theirs."""
    if not available():
        yield bench_programs.Work("PyTorch", [], [MISSING])
        return
    from experiments.bench import torch as bench_torch

    bench_torch.prepare()
    for dtype in bench_programs.dtypes(config):
        groups = [_decision_group(config, width, dtype) for width in config.peer.decisions]
        window = bench_planning.network_of().config.window
        for size in zip(config.peer.widths, config.peer.batches, strict=True):
            point = bench_training.Point(*size, window)
            settings = bench_training.plain_settings(point, config.encoder_layers, dtype)
            groups.append(_training_group(settings, point, config.training.steps))
        yield bench_programs.Work("beside PyTorch", groups)


def available() -> bool:
    """Whether PyTorch can be imported."""
    try:
        import torch  # noqa: F401
    except ImportError:
        return False
    return True


def _training_group(settings: PretrainConfig, point: bench_training.Point, steps: int) -> Sequence:
    dtype = settings.model.compute_dtype
    name = bench_programs.name("peer", "training", dtype, **point._asdict())
    prepared = functools.partial(bench_training.prepare, settings)
    ours = functools.partial(bench_training.steps, prepared, steps, name)
    return [ours, functools.partial(_their_training, settings, steps, name)]


def _their_training(
    settings: PretrainConfig, steps: int, name: dict[str, Any]
) -> bench_programs.Program:
    from experiments.bench import torch as bench_torch

    data = bench_training.prepare(settings).data
    stats = {m.name: tokens.identity_stats(m.features) for m in settings.model.modalities}
    values = tokens.encode_modalities(settings.model.modalities, stats, data.values)
    values = {m: np.asarray(x) for m, x in values.items()}
    call = bench_torch.training(settings, values, np.asarray(data.window_starts), steps)
    products = operations.training_step(settings.model, settings.batch_size)
    return bench_programs.Program(name | {"program": "PyTorch"}, call, products, steps=steps)


def _decision_group(config: config_dict.ConfigDict, width: int, dtype: str) -> Sequence:
    sizes = {"width": width, "encoder_layers": config.encoder_layers, "compute_dtype": dtype}
    network, plan = bench_planning.network_of(**sizes), config.plan
    point = bench_planning.Point("m3pc_m", plan.candidates, plan.horizon, 1, True)
    arguments = network, point, plan.history
    return [functools.partial(make, *arguments) for make in (_our_decision, _their_decision)]


def _our_decision(*arguments: Any) -> bench_programs.Program:
    program = bench_planning.compile_point(*arguments)
    return program._replace(name=program.name | {"section": "peer"})


def _their_decision(
    network: Any, point: bench_planning.Point, history: int
) -> bench_programs.Program:
    from experiments.bench import torch_planner as bench_torch_planner

    contexts = bench_planning.random_arguments(network, point, history)[1]
    context = jax.tree.map(lambda x: x[0], contexts)
    plan = bench_planning.plan_of(point, history)
    limit = bench_training.LIMIT
    call = bench_torch_planner.decision(network.config, plan, context, limit)
    settings = {"width": network.config.width, "candidates": point.candidates}
    settings |= {"horizon": point.horizon, "environments": 1, "program": "PyTorch"}
    name = bench_programs.name("peer", point.method, network.config.compute_dtype, **settings)
    whole = bench_planning.multiply_adds(network, point._replace(pruned=False), history)
    return bench_programs.Program(name, call, whole)
