"""Configurations of the runs of one program: seeds, and values of settings that may differ.

    python -m experiments.pretrain --config=configs/pretrain.py:hopper-medium --config.seeds=5
    python -m experiments.pretrain ... --config.sweep.learning_rate="(1e-3,3e-3)"

Each run has the folder and the configuration of a run that is started by itself, so that it can
also be continued by itself.
"""

from __future__ import annotations

import itertools
import math
import pathlib
from collections.abc import Mapping

from ml_collections import config_dict

from experiments.training import build
from mtm_jax.errors import UserError

# Keys of a configuration that make several runs of it; a run has none of them.
KEYS = ("seeds", "sweep")
MAX_SEEDS = 1000
# Key of `sweep` -> key of a run.
SWEPT = {"learning_rate": "optim.learning_rate", "entropy_target": "loss.entropy_target"}


def expand(config: config_dict.ConfigDict) -> list[config_dict.ConfigDict]:
    """List the configurations of the runs, each with its folder in `out`.

    Raises:
        UserError: there is none, or two are the same.
    """
    if not 1 <= config.seeds <= MAX_SEEDS:
        raise UserError(f"seeds is {config.seeds}; give a number from 1 to {MAX_SEEDS}")
    values = {key: tuple(config.sweep[key]) for key in SWEPT if config.sweep[key]}
    for key, found in values.items():
        if not all(type(value) in (int, float) and math.isfinite(value) for value in found):
            raise UserError(f"sweep.{key} is {found}; give finite numbers, such as (1e-3,3e-3)")
    repeated = [key for key, found in values.items() if len(set(found)) < len(found)]
    if repeated:
        raise UserError(f"sweep.{repeated[0]} is {values[repeated[0]]}; give every value once")
    seeds = range(config.seed, config.seed + config.seeds)
    points = [
        (seed, dict(zip(values, point, strict=True)))
        for seed, *point in itertools.product(seeds, *values.values())
    ]
    runs = [_run(config, seed, point) for seed, point in points]
    if len(runs) > 1:
        for run, (_, point) in zip(runs, points, strict=True):
            run.out = str(_folder(config, run, point))
    return runs


def _run(
    config: config_dict.ConfigDict, seed: int, point: Mapping[str, float]
) -> config_dict.ConfigDict:
    run = config.copy_and_resolve_references()
    with run.unlocked():
        for key in KEYS:
            del run[key]
    run.seed = seed
    run.update_from_flattened_dict({SWEPT[key]: float(v) for key, v in point.items()})
    return run


def _folder(
    config: config_dict.ConfigDict, run: config_dict.ConfigDict, point: Mapping[str, float]
) -> pathlib.Path:
    """Name the folder of one of several runs: below `out`, or beside that of a single run."""
    label = "".join(f"-{key}{value:g}" for key, value in point.items())
    if config.out:
        return pathlib.Path(config.out) / f"seed{run.seed}{label}"
    default = build.default_out(run)
    return default.with_name(default.name + label)
