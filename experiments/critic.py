"""Train a critic by implicit Q-learning on the data of a pretraining run, and save it with the run.

    python -m experiments.critic --config.run=runs/pretrain/hopper-medium-m3pc-small-seed0
    python -m experiments.critic --config=configs/critic.py:hopper-medium,preset=small

The run may still be training. The same command continues an interrupted training. With
--config.seeds the critics of several runs are trained in one program.
The critic goes into the run's folder critic: metrics.jsonl and checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import numpy as np
from ml_collections import config_dict

from configs import critic as page
from experiments.runtime import cli, runs
from experiments.training import build, loop, named_run, nonfinite
from experiments.training.critic_run import CriticRun
from experiments.training.group_trainer import GroupTrainer
from mtm_jax.config import CriticConfig
from mtm_jax.errors import UserError
from mtm_jax.training import dataset, iql


def main(config: config_dict.ConfigDict) -> None:
    """Check, load, build, resume, train."""
    check(config)
    critics = [CriticRun(folder) for folder in named_run.find_all(config, "critic")]
    check_same_data(critics)
    pretraining = critics[0].pretraining
    data = build.load_data(pretraining)
    check_data(data)
    settings = make_settings(config.critic, pretraining.preset, data)
    for critic in critics:
        critic.prepare(settings, data, config.use_older)
    pending = [critic for critic in critics if config.use_older or not say_finished(critic)]
    if not pending:
        return
    cli.say(build.summary(data))
    for critic in pending:
        cli.say(f"a critic of {settings.total_steps} updates in {critic.folder}")
    trainer = build_trainer(pending, data, settings)
    rows = loop.run(trainer, schedule(config, settings), "critic", "updates")
    for critic, row in zip(pending, rows, strict=bool(rows)):
        mean = row["critic/v_mean"]
        cli.say(f"mean V over the data is {mean:.2f}; the critic is in {critic.folder}")


def say_finished(critic: CriticRun) -> bool:
    """Say that a critic is finished; return whether it is."""
    done = critic.stored_steps()
    if done < critic.settings.total_steps:
        return False
    where = critic.folder
    cli.say(f"the critic in {where} is finished: {done} updates; delete it to train another")
    return True


def check_same_data(critics: Sequence[CriticRun]) -> None:
    """Refuse runs whose critics cannot share a program.

    Raises:
        UserError: they learn from other data, or with other settings.
    """
    first, *others = critics
    for other in others:
        one, two = (runs.to_json(critic.pretraining) for critic in (first, other))
        differ = runs.differences(one, two)
        found = [differ[k] for k in differ if k in ("env", "source", "preset") or "data." in k]
        if found:
            raise UserError(
                f"{other.folder.parent} cannot be trained with {first.folder.parent}: "
                f"{'; '.join(found)}; train its critic by itself"
            )


def build_trainer(
    critics: Sequence[CriticRun], data: build.Data, settings: CriticConfig
) -> GroupTrainer:
    """Build the program of all critics."""
    training = iql.make_training(settings, *dimensions(data), data.stats["states"])
    guards = [
        nonfinite.Guard(
            *(training, critic.folder, "updates", examiner(settings)),
            advice=f"delete {critic.folder} and try a lower --config.critic.learning_rate",
        )
        for critic in critics
    ]
    return GroupTrainer(critics, guards, data.train, summary)


def summary(rows: Sequence[loop.Row]) -> str:
    """Describe the first critic, for the progress bar."""
    return f"Q loss {rows[0]['critic/q_loss']:.3f}, V {rows[0]['critic/v_mean']:.1f}"


def schedule(config: config_dict.ConfigDict, settings: CriticConfig) -> loop.Schedule:
    """Say when something is due."""
    return loop.Schedule(
        total=settings.total_steps,
        call=config.log_every,
        log=config.log_every,
        save=config.save_every,
    )


def dimensions(data: build.Data) -> tuple[int, int]:
    """Read the numbers of states and actions off the data."""
    return tuple(data.train.values[name].shape[-1] for name in ("states", "actions"))


def check(config: config_dict.ConfigDict) -> None:
    """Refuse settings that no run makes right.

    Raises:
        UserError: an interval or the number of updates is out of range.
    """
    for key in ("log_every", "save_every"):
        if config[key] < 1:
            raise UserError(f"{key} is {config[key]} updates; it must be at least 1")
    if config.critic.steps is not None and config.critic.steps < 1:
        raise UserError(f"critic.steps is {config.critic.steps} updates; it must be at least 1")


def make_settings(config: config_dict.ConfigDict, preset: str, data: build.Data) -> CriticConfig:
    """Collect the settings of the training program; those that are unset are the preset's."""
    values = page.PRESETS[preset] | {k: v for k, v in config.items() if v is not None}
    if "unit" not in values:
        values["unit"] = typical_value(data, values["discount"])
    return CriticConfig(total_steps=values.pop("steps"), **values)


def typical_value(data: build.Data, discount: float) -> float:
    """Estimate the size of discounted returns: that of the rewards, over the steps in sight."""
    rewards = np.asarray(data.train.values["rewards"])
    size = float(np.sqrt(np.mean(rewards[np.isfinite(rewards)] ** 2, dtype=np.float64)))
    limit = data.info.max_episode_steps
    steps = limit if discount == 1 else min(limit, 1 / (1 - discount))
    return float(f"{size * steps:.3g}") or 1.0  # the same wherever the sum is rounded


def check_data(data: build.Data) -> None:
    """Refuse data that a critic cannot learn from.

    Raises:
        UserError: no step has an action, a reward and a known next state.
    """
    if data.returns.best is None:
        raise UserError(f"{data.info.name} has no rewards, so there is nothing to value")
    if len(data.train.transitions) == 0:
        raise UserError(
            f"{data.info.name} has no step with an action, a reward and a known next state "
            f"among its {len(data.train.terminals)}, so a critic cannot learn from it"
        )


def examiner(
    settings: CriticConfig,
) -> Callable[[iql.IQLState, dataset.Dataset], nonfinite.Examined]:
    """Build what draws the transitions of an update and says which of them are not finite."""

    def examine(state: iql.IQLState, data: dataset.Dataset) -> nonfinite.Examined:
        key = jax.random.fold_in(state.key, state.step)
        batch = dataset.sample_transitions(key, data, settings.batch_size)
        return nonfinite.examine_rows(batch)

    return examine


if __name__ == "__main__":
    cli.run(main)
