"""Train a ladder of behaviour policies with SAC, from which the built-in data are collected.

Writes an actor every `snapshot_every` environment steps into the run folder. Then
experiments.ladder picks those that are kept. With reward "rnd" the policies explore: they are
rewarded for unfamiliar states, whatever the environment's reward.
The same command continues an interrupted training: every `save_every` environment steps the run
folder gets a checkpoint, and the transitions since the last one (folder replay).
"""

from __future__ import annotations

import math
import pathlib

from ml_collections import config_dict

from experiments.runtime import cli, runs
from experiments.training import behaviour_trainer, loop
from mtm_jax.config import RNDConfig, SACConfig
from mtm_jax.envs import registry
from mtm_jax.errors import UserError
from mtm_jax.training import program, rnd, sac


def main(config: config_dict.ConfigDict) -> None:
    """Check, build, resume, train."""
    check(config)
    spec, _ = registry.split_name(config.env)
    training = make_training(config, spec)
    folder = open_folder(config)
    trainer = behaviour_trainer.BehaviourTrainer(config, spec, training, folder)
    loop.run(trainer, schedule(config), f"SAC on {spec.builtin_id}")


def check(config: config_dict.ConfigDict) -> None:
    """Refuse settings before the run folder is made.

    Raises:
        UserError: a number is out of range, or coverage would need more than is kept.
    """
    for key in ("save_every", "snapshot_every", "num_envs", "steps_per_phase"):
        if config[key] < 1:
            raise UserError(f"{key} is {config[key]}; it must be at least 1")
    for key in ("seed", "random_steps", "total_steps", "updates_per_step"):
        if not 0 <= config[key] < math.inf:
            raise UserError(f"{key} is {config[key]}; it must be finite and not negative")
    if len(config.sac.hidden) != 2:
        raise UserError(
            f"sac.hidden is {tuple(config.sac.hidden)}; an actor of the built-in data has two "
            "hidden layers, such as (256, 256)"
        )
    if config.replay_capacity < max(
        config.snapshot_every, config.steps_per_phase * config.num_envs
    ):
        raise UserError(
            f"replay_capacity is {config.replay_capacity}; it must be at least snapshot_every, "
            f"{config.snapshot_every}, and what all environments do between two updates"
        )


def schedule(config: config_dict.ConfigDict) -> loop.Schedule:
    """Say when something is due; the last phase is a whole one."""
    call = behaviour_trainer.steps_per_call(config)
    return loop.Schedule(
        total=-(-config.total_steps // call) * call,
        call=call,
        log=config.snapshot_every,
        validate=config.snapshot_every if config.coverage else None,
        save=config.save_every,
    )


def make_training(config: config_dict.ConfigDict, spec: registry.EnvSpec) -> program.Training:
    """Build SAC on the reward that the configuration names."""
    total = round(config.total_steps * config.updates_per_step)
    settings = SACConfig(total_updates=total, **config.sac)
    if config.reward == "environment":
        return sac.make_training(settings, spec.obs_dim, spec.action_dim)
    if config.reward == "rnd":
        return rnd.make_training(settings, RNDConfig(**config.rnd), spec.obs_dim, spec.action_dim)
    raise UserError(f"unknown reward {config.reward!r}; choose environment or rnd")


def open_folder(config: config_dict.ConfigDict) -> pathlib.Path:
    """Create the run folder, or continue in it.

    Raises:
        UserError: it holds a different run, or actors without a checkpoint.
    """
    folder = pathlib.Path(config.out or f"runs/behaviours/{config.name}-seed{config.seed}")
    saved = any((folder / "checkpoints").glob("*"))
    if any((folder / "actors").glob("*.npz")) and not saved:
        raise UserError(
            f"{folder} holds actors and no checkpoint to continue from; choose another folder "
            "with --config.out, or delete it"
        )
    runs.open_run(folder, runs.to_json(config))
    (folder / "actors").mkdir(exist_ok=True)
    return folder


if __name__ == "__main__":
    cli.run(main)
