"""Finetune a pretrained model online: it explores with its own plans and learns from what it sees.

    python -m experiments.m3pc_online --config=configs/m3pc_online.py:hopper-medium
    python -m experiments.m3pc_online --config.run=RUN --config.steps=5000

Offline to online M3PC (section 5.3). Every episode explores by plans whose first action is drawn
(algorithm 1); then the model and its critic learn from the best offline episodes and those
collected online. The run folder holds config.json, metrics.jsonl (a row for every finished
episode), results.jsonl (evaluations, whose step counts environment steps), checkpoints and figures.
The same command continues an interrupted run where it was, in the middle of an episode.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib

from ml_collections import config_dict

from configs import m3pc_online as page
from experiments import critic as critic_program
from experiments import pretrain as pretrain_program
from experiments.runtime import cli, evaluation, plans, runs, signals
from experiments.training import build, named_run
from experiments.training.explorer import Explorer
from experiments.training.online_run import OnlineRun
from mtm_jax.agents import critic_files, finetuner, planner, pretrained
from mtm_jax.config import FinetuneConfig, OptimConfig
from mtm_jax.data import info as data_info
from mtm_jax.envs import make
from mtm_jax.errors import UserError
from mtm_jax.io import progress, results
from mtm_jax.planning import roles
from mtm_jax.plots import online

EPISODE_SEED = 1_000_000  # of the first reset of a run with seed 0; evaluations use others


def main(config: config_dict.ConfigDict) -> None:
    """Check, prepare, resume, explore and learn, evaluate."""
    check(config)
    source = prepare(config)
    run = config_dict.ConfigDict(runs.read_config(source))
    settle(config, run)
    agent = pretrained.load(source)
    evaluation.check_simulator(agent, source)
    folder = pathlib.Path(config.out) if config.out else default_out(config, source)
    runs.check_folder(folder, runs.to_json(config))
    online_run = build_run(config, run, agent, folder)
    runs.open_run(folder, runs.to_json(config))
    cli.say(f"run folder {folder}; exploring with {config.explore}")
    with runs.only_writer(folder), signals.interruptible() as interrupted:
        online_run.resume()
        explore(online_run, run, interrupted)
        draw(folder)
    online_run.explorer.close()
    signals.leave(interrupted, online_run.taken, "environment step")


def check(config: config_dict.ConfigDict) -> None:
    """Refuse settings before anything is made.

    Raises:
        UserError: a method is unknown, or a number is out of range.
    """
    planned = tuple(planner.GUIDANCE)
    for name, methods in (("explore", (config.explore,)), ("eval.methods", config.eval.methods)):
        if unknown := [m for m in methods if m not in (*roles.POLICIES, *planned)]:
            known = ", ".join((*roles.POLICIES, *planned))
            raise UserError(f"{name} has {unknown[0]!r}; choose among {known}")
    for key in ("environments", "chunk", "save_every"):
        if config[key] < 1:
            raise UserError(f"{key} is {config[key]}; it must be at least 1")
    for key in ("updates", "critic_updates", "learning_after", "online_after"):
        if config[key] < 0:
            raise UserError(f"{key} is {config[key]}; it must not be negative")
    evaluation.check_numbers(config.eval)


def prepare(config: config_dict.ConfigDict) -> pathlib.Path:
    """Find the pretraining run and its critic; make what is missing.

    Raises:
        UserError: something is missing, and `make_critic` is off or the run was named by folder.
    """
    if config.env and config.make_critic and not config.run:
        folder = build.default_out(config)
        if not (folder / runs.CONFIG_FILE).is_file():
            cli.say(f"there is no pretraining run in {folder}: it is made first")
        if not (folder / "checkpoints").is_dir() or not (folder / results.RESULTS_FILE).exists():
            pretrain_program.main(cli.parse(pretrain_flags(config), "configs/pretrain.py"))
    folder = named_run.find(config, "m3pc_online")
    if not (folder / critic_files.FOLDER / "checkpoints").is_dir():
        if not config.make_critic:
            raise UserError(
                f"{folder} has no critic, and make_critic is False; train one with "
                f"python -m experiments.critic --config.run={folder}"
            )
        cli.say(f"{folder} has no critic: it is made first")
        critic_program.main(cli.parse([f"--config.run={folder}"], "configs/critic.py"))
    return folder


def pretrain_flags(config: config_dict.ConfigDict) -> list[str]:
    """Write the command line of the pretraining run that a configuration means."""
    return named_run.pretrain_command(config).split(" ")[3:]


def settle(config: config_dict.ConfigDict, run: config_dict.ConfigDict) -> None:
    """Fill in what is unset by the preset of the pretraining run.

    Raises:
        UserError: a number is out of range.
    """
    preset = page.PRESETS[run.preset]
    for key in ("steps", "batch_size", "learning_rate"):
        if config[key] is None:
            config[key] = preset[key]
    for part, key, name in (
        (config.plan, "candidates", "candidates"),
        (config.eval, "every", "every"),
        (config.buffer, "episodes", "episodes"),
        (config.buffer, "steps", "buffer_steps"),
    ):
        if part[key] is None:
            part[key] = preset[name]
    for name, value in (("steps", config.steps), ("eval.every", config.eval.every)):
        if value < 1:
            raise UserError(f"{name} is {value} environment steps; it must be at least 1")


def default_out(config: config_dict.ConfigDict, source: pathlib.Path) -> pathlib.Path:
    """Name the run folder after the pretraining run and what explores."""
    hindsight = "-hindsight" if config.critic_updates == 0 else ""
    return pathlib.Path("runs") / "online" / f"{source.name}-{config.explore}{hindsight}"


def build_run(
    config: config_dict.ConfigDict,
    run: config_dict.ConfigDict,
    agent: pretrained.Pretrained,
    folder: pathlib.Path,
) -> OnlineRun:
    """Load the data, fill the buffers, make the environments."""
    data = build.load_data(run)
    cli.say(build.summary(data))
    tuner = finetuner.Finetuner(
        agent,
        data.train,
        finetune_config(config, run, data, agent),
        episodes=config.buffer.episodes,
        steps=config.buffer.steps,
        seed=run.seed,
    )
    limit = data_info.time_limit(agent.info) or agent.info.max_episode_steps
    env = functools.partial(make.make, agent.info.env_id, max_episode_steps=limit)
    explorer = Explorer(
        env, config.environments, agent.info.max_episode_steps, EPISODE_SEED * (1 + run.seed)
    )
    return OnlineRun(config, folder, tuner, explorer, run.seed)


def finetune_config(
    config: config_dict.ConfigDict,
    run: config_dict.ConfigDict,
    data: build.Data,
    agent: pretrained.Pretrained,
) -> FinetuneConfig:
    """Collect the settings of the learner: those of the pretraining with another optimiser."""
    optim = OptimConfig(
        learning_rate=config.learning_rate,
        warmup_steps=0,
        total_steps=1,
        schedule="constant",
        weight_decay=run.optim.weight_decay,
        clip_norm=run.optim.clip_norm,
        average=config.average,
    )
    model = dataclasses.replace(
        build.pretrain_config(run, data), optim=optim, batch_size=config.batch_size, micro_batches=1
    )
    return FinetuneConfig(
        dataclasses.replace(model, model=agent.model.config),
        agent.require_critic().config,
        config.critic_updates,
        config.online_after,
    )


def explore(
    online_run: OnlineRun, run: config_dict.ConfigDict, interrupted: signals.Interrupted
) -> None:
    """Explore and learn to the last step, or until a signal arrives."""
    config, saved = online_run.config, online_run.taken
    if online_run.taken == 0:
        evaluate(online_run, run)
    with progress.progress(config.steps, "exploring", start=online_run.taken) as bar:
        while online_run.taken < config.steps and not interrupted:
            before = online_run.taken
            online_run.step()
            taken = online_run.taken
            bar.update(min(taken, config.steps), summary(online_run))
            last = taken >= config.steps
            if last or taken // config.eval.every > before // config.eval.every:
                evaluate(online_run, run)
            if last or taken // config.save_every > before // config.save_every:
                online_run.save()
                saved = taken
    if saved < online_run.taken:
        online_run.save()
    if online_run.taken >= config.steps:
        online_run.save_critic()


def summary(online_run: OnlineRun) -> str:
    """Describe how the run goes, for the progress bar."""
    recent = online_run.recent_return()
    shown = "no episode yet" if recent is None else f"mean return {recent:.0f}"
    return f"{shown}, {int(online_run.tuner.state.step)} updates"


def evaluate(online_run: OnlineRun, run: config_dict.ConfigDict) -> None:
    """Evaluate the present agent and append the rows; resets are the same every time."""
    config, agent = online_run.config, online_run.tuner.agent
    agent = dataclasses.replace(agent, step=online_run.taken)
    for method in config.eval.methods:
        plan = plans.of_method(method, config)
        actor = plans.actor(agent, method, plan, config.eval)
        further = {"explore": config.explore, "critic_updates": config.critic_updates}
        further |= plans.describe(plan, "", agent) if plan else {}
        row = evaluation.evaluate_actor(
            agent, method, actor, config.eval, "m3pc_online", run, further
        )
        results.write_result(online_run.folder, row)
        cli.say(f"{online_run.taken} steps: {method} {row['normalized_mean']:.1f}")


def draw(folder: pathlib.Path) -> None:
    """Draw how the run went, as far as it has come."""
    for path in online.draw(folder):
        cli.say(f"figure: {path}")


if __name__ == "__main__":
    cli.run(main)
