"""The work of an arena: training and evaluating a recipe on a data set, here or in processes."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import NamedTuple

from ml_collections import config_dict

from experiments import critic, pretrain
from experiments.arena import entries
from experiments.runtime import cli, evaluation, plans, runs
from mtm_jax.agents import acting, pretrained
from mtm_jax.envs import rollout
from mtm_jax.errors import UserError
from mtm_jax.io import progress, results
from mtm_jax.training import held_out

NEED_CRITIC = ("m3pc_q", "m3pc_v")  # methods that the critic of a run guides


class Job(NamedTuple):
    """A recipe on a data set, and the ways of acting that have not been evaluated with it."""

    recipe: str
    name: str
    actings: tuple[str, ...]

    @property
    def label(self) -> str:
        return f"{self.recipe} on {self.name}"


def remaining(config: config_dict.ConfigDict) -> list[Job]:
    """List what has not been evaluated."""
    jobs = []
    for recipe in config.recipes:
        done = {key_of(row) for row in entries.rows(config, [recipe])}
        for name in config.names:
            asked = entries.actings(config, recipe)
            wanted = tuple(a for a in asked if not evaluated(config, done, name, a))
            jobs += [Job(recipe, name, wanted)] if wanted else []
    return jobs


def key_of(row: dict) -> tuple:
    """Say what a row of results or errors answers, within a recipe."""
    settings, played = row["settings"], row.get("normalized_scores")
    key = row["dataset"], settings["acting"], row["seed"]
    return (*key, settings["eval_seed"], len(played)) if played else key


def evaluated(config: config_dict.ConfigDict, done: set[tuple], name: str, acting: str) -> bool:
    """Whether all seeds have been evaluated."""
    seeds = range(config.seed, config.seed + config.seeds)
    played = () if acting in held_out.QUESTIONS else (config.eval_seed, config.episodes)
    return all((name, acting, seed, *played) in done for seed in seeds)


def work(config: config_dict.ConfigDict, job: Job) -> None:
    """Train what is not trained, and evaluate."""
    pretrain.train(entries.pretraining(config, job.recipe, job.name))
    actings = [entries.acting(config, name) for name in job.actings]
    folders = entries.seed_folders(config, job.recipe, job.name)
    if any(a.method in NEED_CRITIC for a in actings):
        critic.main(critic_config(config, folders[0].parent))
    for entry in actings:
        evaluate(entry, folders, job.recipe)


def critic_config(config: config_dict.ConfigDict, folder: pathlib.Path) -> config_dict.ConfigDict:
    """Build the configuration of experiments.critic for the runs of all seeds."""
    run = folder if config.seeds > 1 else folder / f"seed{config.seed}"
    given = {"run": run, "seed": config.seed, "seeds": config.seeds}
    given |= {} if config.critic_steps is None else {"critic.steps": config.critic_steps}
    return cli.parse([f"--config.{k}={v}" for k, v in given.items()], "configs/critic.py")


def evaluate(
    entry: entries.Acting,
    folders: Sequence[pathlib.Path],
    recipe: str,
    experiment: str = "arena",
) -> None:
    """Play the episodes of one way of acting with all seeds side by side, and write the rows."""
    started = time.monotonic()
    agents = [pretrained.load(folder, weights=entry.config.weights) for folder in folders]
    evaluation.check_simulator(agents[0], folders[0])
    settings = entry.config.eval
    plan = plans.of_method(entry.method, entry.config)
    prompt = plans.prompt_of_method(entry.method, entry.config.prompt)
    actors = [plans.actor(a, entry.method, plan, settings, prompt=prompt) for a in agents]
    group = acting.Group(tuple(actors))
    episodes = evaluation.play(agents[0].info, entry.name, group, settings, len(agents))
    seconds = time.monotonic() - started
    parts = zip(folders, agents, rollout.split(episodes, len(agents)), strict=True)
    for folder, agent, part in parts:
        further = {"recipe": recipe, "acting": entry.name}
        further |= plans.describe(plan, "", agent) if plan else {"history": actors[0].history}
        further |= plans.describe_prompt(prompt) if prompt else {}
        run = runs.read_pretraining(folder)
        row = evaluation.make_row(agent, entry.method, part, settings, experiment, run, further)
        row["metrics"]["seconds"] = seconds / len(agents)
        results.write_result(folder.parent, row)


def do(
    config: config_dict.ConfigDict,
    jobs: Sequence[Job],
    work: Callable[[config_dict.ConfigDict, Job], None] = work,
) -> None:
    """Do all jobs, `parallel` at a time."""
    if config.parallel > 1 and len(jobs) > 1:
        in_processes(config, jobs)
        return
    for number, job in enumerate(jobs, start=1):
        cli.say(f"{job.label} ({number} of {len(jobs)})")
        work(config, job)


def in_processes(config: config_dict.ConfigDict, jobs: Sequence[Job]) -> None:
    """Do `parallel` jobs at a time, each in a process of the same command.

    Raises:
        UserError: some failed; it names their logs.
    """
    failed = []
    with (
        progress.progress(len(jobs), entries.program_of(config), unit="jobs") as bar,
        futures.ThreadPoolExecutor(config.parallel) as threads,
    ):
        waiting = {threads.submit(start, config, job): job for job in jobs}
        for count, future in enumerate(futures.as_completed(waiting), start=1):
            job = waiting[future]
            failed += [job] if future.result() else []
            bar.update(count, job.label)
    if failed:
        logs = ", ".join(str(log_of(config, job)) for job in failed)
        raise UserError(f"{len(failed)} of {len(jobs)} jobs failed; see {logs}")


def start(config: config_dict.ConfigDict, job: Job) -> int:
    """Run a job as a process, with its output in a log; return its exit code."""
    log = log_of(config, job)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        program = f"experiments.{entries.program_of(config)}"
        command = [sys.executable, "-m", program, *arguments(config, job)]
        return subprocess.run(command, stdout=file, stderr=file, check=False).returncode


def arguments(config: config_dict.ConfigDict, job: Job) -> Iterator[str]:
    """Write the arguments of the command that does one job."""
    own = {"recipes": (job.recipe,), "names": (job.name,), "actings": job.actings, "parallel": 1}
    for key, value in (config.to_dict() | own).items():
        if value is not None and key in config:
            yield f"--config.{key}={value}"


def log_of(config: config_dict.ConfigDict, job: Job) -> pathlib.Path:
    """Name the log of a job."""
    return pathlib.Path(config.out) / "logs" / f"{job.recipe}-{job.name}.log"
