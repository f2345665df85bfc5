"""Train a critic by implicit Q-learning on the data of a pretraining run, and save it with the run.

    python -m experiments.critic --config.run=runs/pretrain/hopper-medium-m3pc-small-seed0
    python -m experiments.critic --config=configs/critic.py:hopper-medium,preset=small

The run may still be training. The same command continues an interrupted training. With
--config.seeds the critics of several runs are trained in one program.
The critic goes into the run's folder critic: metrics.jsonl and checkpoints.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np
from ml_collections import config_dict

from configs import critic as page
from experiments import pretrain
from experiments.runtime import cli, runs, signals
from experiments.training import build, group, named_run, nonfinite
from experiments.training.critic_run import CriticRun
from mtm_jax.config import CriticConfig
from mtm_jax.errors import UserError
from mtm_jax.io import progress
from mtm_jax.training import dataset, iql


def main(config: config_dict.ConfigDict) -> None:
    """Find the runs, load their data, train, save."""
    check(config)
    every = [CriticRun(folder) for folder in named_run.find_all(config, "critic")]
    check_same_data(every)
    run = every[0].run
    data = build.load_data(run)
    check_data(data)
    settings = make_settings(config.critic, run.preset, data)
    for critic in every:
        critic.prepare(settings, data)
    pending = [critic for critic in every if config.use_older or not say_finished(critic)]
    if not pending:
        return
    cli.say(build.summary(data))
    for critic in pending:
        cli.say(f"a critic of {settings.total_steps} updates in {critic.folder}")
    together = compiled(settings, data, pending)
    with contextlib.ExitStack() as held:
        for critic in pending:
            held.enter_context(critic.hold())
        interrupted = held.enter_context(signals.interruptible())
        states = restore(config, settings, data, pending)
        step, rows = train(config, data, pending, together, states, interrupted)
    signals.leave(interrupted, step, "update")
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


def check_same_data(every: Sequence[CriticRun]) -> None:
    """Refuse runs whose critics cannot share a program.

    Raises:
        UserError: they learn from other data, or with other settings.
    """
    first, *others = every
    for other in others:
        differ = runs.differences(runs.to_json(first.run), runs.to_json(other.run))
        found = [differ[k] for k in differ if k in ("env", "source", "preset") or "data." in k]
        if found:
            raise UserError(
                f"{other.folder.parent} cannot be trained with {first.folder.parent}: "
                f"{'; '.join(found)}; train its critic by itself"
            )


def compiled(
    settings: CriticConfig, data: build.Data, every: Sequence[CriticRun]
) -> group.Together:
    """Build the program of all critics, which compiles when it is called."""
    arguments = (settings, *dimensions(data), data.stats["states"])
    alone = iql.make_trainer(*arguments)
    guards = [
        nonfinite.Guard(
            *(alone, critic.folder, "updates", examiner(settings)),
            advice=f"delete {critic.folder} and try a lower --config.critic.learning_rate",
        )
        for critic in every
    ]
    trainer = alone if len(every) == 1 else iql.make_group_trainer(*arguments)
    return group.Together(trainer, guards)


def dimensions(data: build.Data) -> tuple[int, int]:
    """Read the numbers of states and actions off the data."""
    return tuple(data.train.values[name].shape[-1] for name in ("states", "actions"))


def restore(
    config: config_dict.ConfigDict,
    settings: CriticConfig,
    data: build.Data,
    every: Sequence[CriticRun],
) -> list[iql.IQLState]:
    """Continue every critic from the newest step that all have a checkpoint of."""
    step = group.common_step([critic.checkpoints for critic in every])
    init = iql.make_trainer(settings, *dimensions(data), data.stats["states"]).init
    fresh = [init(jax.random.key(critic.run.seed)) for critic in every]
    states = [
        critic.restore(state, step, config.use_older)
        for critic, state in zip(every, fresh, strict=True)
    ]
    group.go_back([critic.checkpoints for critic in every], step)
    return states


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


def train(
    config: config_dict.ConfigDict,
    data: build.Data,
    every: Sequence[CriticRun],
    together: group.Together,
    states: Sequence[iql.IQLState],
    interrupted: signals.Interrupted,
) -> tuple[int, list[dict[str, float]]]:
    """Run to the last update in compiled calls of `log_every`, logging after each.

    Returns:
        updates done, and the last metrics of each critic, if there are any.
    """
    total, state, rows = every[0].settings.total_steps, together.join(states), []
    step = saved = int(states[0].step)
    for critic in every:
        critic.writer.truncate(step)

    def save() -> None:
        for k, critic in enumerate(every):
            critic.save(together.part(state, k))

    with progress.progress(total, "critic", start=step, unit="updates") as bar:
        bar.update(step, "compiling")
        while step < total and not interrupted:
            length = min(config.log_every, total - step)
            state, rows = together.run(state, data.train, length)
            step += length
            for critic, row in zip(every, rows, strict=True):
                critic.writer.write(step, row)
            bar.update(
                step, f"Q loss {rows[0]['critic/q_loss']:.3f}, V {rows[0]['critic/v_mean']:.1f}"
            )
            if pretrain.due(step, length, config.save_every):
                save()
                saved = step
        if saved < step:
            save()
    return step, rows


def examiner(
    settings: CriticConfig,
) -> Callable[[iql.IQLState, dataset.Dataset], nonfinite.Examined]:
    """Build what draws the transitions of an update and says which of them are not finite."""

    def examine(state: iql.IQLState, data: dataset.Dataset) -> nonfinite.Examined:
        key = jax.random.fold_in(state.key, state.step)
        batch = dataset.sample_transitions(key, data, settings.batch_size)
        arrays = {f.name: np.asarray(getattr(batch, f.name)) for f in dataclasses.fields(batch)}
        return nonfinite.Examined(nonfinite.bad_rows(arrays), arrays)

    return examine


if __name__ == "__main__":
    cli.run(main)
