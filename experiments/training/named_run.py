"""Finding the pretraining run that a command means: a folder, or the name it was made with."""

from __future__ import annotations

import pathlib

from ml_collections import config_dict

from experiments.runtime import runs
from experiments.training import build, run_configs
from mtm_jax.errors import UserError


def find(config: config_dict.ConfigDict, experiment: str) -> pathlib.Path:
    """Find the run folder that a configuration means.

    Raises:
        UserError: none was named, there is none, or it holds a run of another data set.
    """
    if not (config.run or config.env):
        raise UserError(
            f"no run was named; give --config.run=FOLDER, or --config=configs/{experiment}.py:ENV "
            "for the run of configs/pretrain.py:ENV"
        )
    folder = pathlib.Path(config.run) if config.run else build.default_out(config)
    if not (folder / runs.CONFIG_FILE).is_file():
        hint = f"make it with: {pretrain_command(config)}" if config.env else "give a run folder"
        raise UserError(f"there is no pretraining run in {folder}; {hint}")
    env = runs.read_config(folder).get("env")
    if env is None or config.env not in ("", env):
        wanted = f"data set {config.env}" if config.env else "a pretraining run"
        raise UserError(f"{folder} holds a run of {env}, not of {wanted}; give another run folder")
    runs.read_pretraining(folder)
    return folder


def find_all(config: config_dict.ConfigDict, experiment: str) -> list[pathlib.Path]:
    """Find the runs of `seeds` seeds: those that NAME stands for, or `run`/seed0, `run`/seed1, ...

    Raises:
        UserError: `seeds` is out of range, or what `find` raises.
    """
    if not 1 <= config.seeds <= run_configs.MAX_SEEDS:
        raise UserError(f"seeds is {config.seeds}; give a number from 1 to {run_configs.MAX_SEEDS}")
    if config.seeds == 1:
        return [find(config, experiment)]
    found = []
    for seed in range(config.seed, config.seed + config.seeds):
        one = config.copy_and_resolve_references()
        one.seed = seed
        one.run = str(pathlib.Path(config.run) / f"seed{seed}") if config.run else ""
        found.append(find(one, experiment))
    return found


def pretrain_command(config: config_dict.ConfigDict) -> str:
    """Write the command that makes the run that a configuration means."""
    variant = "" if config.variant == "m3pc" else f",variant={config.variant}"
    role = config.get("role", "unified")
    variant += "" if role == "unified" else f",role={role}"
    given = {"source": config.source, "seed": config.seed, "out": config.run}
    default = {"source": "builtin", "seed": 0, "out": ""}
    flags = [f" --config.{k}={v}" for k, v in given.items() if v != default[k]]
    name = f"{config.env},preset={config.preset}{variant}"
    return f"python -m experiments.pretrain --config=configs/pretrain.py:{name}{''.join(flags)}"
