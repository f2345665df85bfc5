"""Train a critic by implicit Q-learning on the data of a pretraining run, and save it with the run.

    python -m experiments.critic --config.run=runs/pretrain/hopper-medium-m3pc-small-seed0
    python -m experiments.critic --config=configs/critic.py:hopper-medium,preset=small

The run may still be training. The same command continues an interrupted training.
The critic goes into the run's folder critic: metrics.jsonl and checkpoints.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Callable

import jax
import numpy as np
from ml_collections import config_dict

from experiments import build, cli, named_run, nonfinite, pretrain, resume, runs, signals
from mtm_jax import agent as agent_lib
from mtm_jax import checkpoint, dataset, iql, metrics, progress, tokens
from mtm_jax.config import CriticConfig
from mtm_jax.errors import UserError

# By the run's preset. M3PC table 4 has a discount of 0.99; plans by a critic that looks no further
# than 100 steps fell earlier (README, Planning).
PAPER = {"steps": 1_000_000, "discount": 0.99, "polyak": 0.005, "hidden": (256, 256)}
PRESETS = {
    "small": {"steps": 30_000, "discount": 0.997, "polyak": 0.02, "hidden": (128, 128)},
    "base": PAPER | {"steps": 200_000},
    "paper": PAPER,
}


def main(config: config_dict.ConfigDict) -> None:
    """Find the run, load its data, train, save."""
    check(config)
    run_folder = named_run.find(config, "critic")
    if not os.access(run_folder, os.W_OK | os.X_OK):
        raise UserError(f"{run_folder} is read-only, but the critic goes into it; copy the run")
    run = config_dict.ConfigDict(runs.read_config(run_folder))
    folder = run_folder / agent_lib.CRITIC_FOLDER
    data = build.load_data(run)
    check_data(data)
    settings = make_settings(config.critic, run.preset, data)
    done = 0 if config.use_older else stored_steps(run_folder, settings)
    if done >= settings.total_steps:
        cli.say(f"the critic in {folder} is finished: {done} updates; delete it to train another")
        return
    cli.say(build.summary(data))
    cli.say(f"a critic of {settings.total_steps} updates in {folder}")
    stats = data.stats["states"]
    dims = (data.train.values[name].shape[-1] for name in ("states", "actions"))
    trainer = iql.make_trainer(settings, *dims, stats)
    guard = nonfinite.Guard(
        *(trainer, folder, "updates", examiner(settings)),
        advice=f"delete {folder} and try a lower --config.critic.learning_rate",
    )
    folder.mkdir(exist_ok=True)
    with runs.only_writer(folder), signals.interruptible() as interrupted:
        checkpoints = checkpoint.Checkpoints(folder)
        state = trainer.init(jax.random.key(run.seed))
        same = functools.partial(check_same, checkpoints, settings=settings, stats=stats)
        state = resume.restore(state, checkpoints, config.use_older, same)

        def save(state: iql.IQLState) -> None:
            params = iql.raw_params(state, settings)
            critic = iql.Critic(settings, params, stats, int(state.step))
            saved = {"params": critic.params, "stats": stats}
            checkpoints.save(critic.step, saved, state, agent_lib.describe_critic(critic))

        state, row = train(config, settings, data, guard, state, save, folder, interrupted)
    signals.leave(interrupted, int(state.step), "update")
    if row:
        cli.say(f"mean V over the data is {row['critic/v_mean']:.2f}; the critic is in {folder}")


def check(config: config_dict.ConfigDict) -> None:
    """Refuse settings that no run makes right.

    Raises:
        UserError: an interval or the number of updates is out of range.
    """
    for key in ("log_every", "save_every"):
        if config[key] < 1:
            raise UserError(f"{key} is {config[key]} updates; it must be at least 1")
    if config.critic.steps < 0:
        raise UserError(
            f"critic.steps is {config.critic.steps} updates; give a number, or 0 for the preset's"
        )


def make_settings(config: config_dict.ConfigDict, preset: str, data: build.Data) -> CriticConfig:
    """Collect the settings of the training program."""
    values = dict(config)
    values |= {key: values[key] or default for key, default in PRESETS[preset].items()}
    values["unit"] = values["unit"] or typical_value(data, values["discount"])
    return CriticConfig(total_steps=values.pop("steps"), **values)


def typical_value(data: build.Data, discount: float) -> float:
    """Estimate the size of discounted returns: that of the rewards, over the steps in sight."""
    rewards = np.asarray(data.train.values["rewards"])
    size = float(np.sqrt(np.mean(rewards[np.isfinite(rewards)] ** 2, dtype=np.float64)))
    limit = data.info.max_episode_steps
    steps = limit if discount == 1 else min(limit, 1 / (1 - discount))
    return float(f"{size * steps:.3g}") or 1.0  # the same wherever the sum is rounded


def stored_steps(run_folder: pathlib.Path, settings: CriticConfig) -> int:
    """Count the updates of the critic that a run has; it must be of the same settings.

    Raises:
        UserError: its settings are others, or it is damaged.
    """
    folder = run_folder / agent_lib.CRITIC_FOLDER
    if not (folder / "checkpoints").is_dir():
        return 0
    checkpoints = checkpoint.Checkpoints(folder, read_only=True)
    return checkpoints.newest(lambda step: check_same(checkpoints, step, settings)) or 0


def check_same(
    checkpoints: checkpoint.Checkpoints,
    step: int,
    settings: CriticConfig,
    stats: tokens.Stats | None = None,
) -> int:
    """Hold a critic to its settings and, where they are known, the statistics of its data.

    Returns:
        its step.

    Raises:
        UserError: they differ; it lists in what, with both values.
    """
    meta, saved = checkpoints.restore_meta(step), checkpoints.restore_model(step)
    new = json.loads(json.dumps(dataclasses.asdict(settings)))
    differ = runs.differences(meta["critic_config"], new)
    if not settings.policy:
        differ.pop("total_steps", None)  # only the policy's learning rate depends on it
    found = list(differ.values())
    if stats is not None:
        found += resume.stats_differences("stats.states", tokens.Stats(**saved["stats"]), stats)
    if found:
        raise UserError(
            f"the critic in {checkpoints.folder.parent} is another one: {'; '.join(found)}; "
            "delete that folder to train another"
        )
    return step


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
    settings: CriticConfig,
    data: build.Data,
    guard: nonfinite.Guard,
    state: iql.IQLState,
    save: Callable[[iql.IQLState], None],
    folder: pathlib.Path,
    interrupted: signals.Interrupted,
) -> tuple[iql.IQLState, dict[str, float]]:
    """Run to the last update in compiled calls of `log_every`, logging after each."""
    writer, row = metrics.MetricsWriter(folder), {}
    step = saved = int(state.step)
    writer.truncate(step)
    with progress.progress(settings.total_steps, "critic", start=step, unit="updates") as bar:
        bar.update(step, "compiling")
        while step < settings.total_steps and not interrupted:
            length = min(config.log_every, settings.total_steps - step)
            state, row = guard.run(state, data.train, length)
            step += length
            writer.write(step, row)
            bar.update(step, f"Q loss {row['critic/q_loss']:.3f}, V {row['critic/v_mean']:.1f}")
            if pretrain.due(step, length, config.save_every):
                save(state)
                saved = step
        if saved < step:
            save(state)
    return state, row


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
