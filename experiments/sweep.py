"""Run an experiment over data sets and seeds, on Slurm or on this machine, through submitit.

    python -m experiments.sweep --config.names="('hopper-medium','walker2d-medium')" \
        --config.seeds="(0,1,2)" --config.executor=local --config.overrides="('steps=2000',)"

Every job is an ordinary command line. A job that reaches its time limit saves, ends and is queued
again, and the same command then continues it; starting the same sweep again has the same effect.
The exit code is 1 if a job failed or was stopped.
"""

from __future__ import annotations

import importlib.util
import itertools
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import rich.box
import rich.console
import rich.table
from ml_collections import config_dict

from experiments.runtime import cli, sweep_job
from mtm_jax.errors import UserError

POLL_SECONDS = 2.0
STOPPED = (130, 143)  # exit codes of programs that were interrupted and can be continued
NO_RESULT = -1


class Task(NamedTuple):
    """One job of a sweep."""

    label: str
    command: list[str]


class Ended(NamedTuple):
    """How a job ended."""

    task: Task
    job: str  # number of the job
    code: int  # exit code of the program; NO_RESULT if the job has none
    log: pathlib.Path

    @property
    def state(self) -> str:
        """Describe the exit code."""
        if self.code == 0:
            return "finished"
        return "stopped; the same sweep continues it" if self.code in STOPPED else "failed"


def main(config: config_dict.ConfigDict) -> None:
    """Submit all jobs, wait for them, and report how they ended."""
    check(config)
    tasks = make_tasks(config)
    executor = make_executor(config)
    here = config.executor == "local"  # Slurm itself limits how many run at once
    ended = run(tasks, executor, config.parallel if here else len(tasks), cancel=here)
    rich.console.Console(width=140).print(table(ended))
    bad = [e for e in ended if e.code]
    for e in bad:
        cli.say(f"{e.task.label}: {e.state}; its log is {e.log}")
    if bad:
        sys.exit(1)


def check(config: config_dict.ConfigDict) -> None:
    """Refuse settings before anything is submitted.

    Raises:
        UserError: a number or name is out of range, or submitit is missing.
    """
    if config.executor not in ("slurm", "local"):
        raise UserError(f"executor is {config.executor!r}; choose 'slurm' or 'local'")
    for key in ("parallel", "cpus", "memory_gb"):
        if config[key] < 1:
            raise UserError(f"{key} is {config[key]}; it must be at least 1")
    for key in ("gpus", "requeues"):
        if config[key] < 0:
            raise UserError(f"{key} is {config[key]}; it must not be negative")
    if not 1 / 60 <= config.hours < 10_000:
        raise UserError(f"hours is {config.hours}; give a job from a minute to 10 000 hours")
    if not all(isinstance(o, str) and "=" in o for o in config.overrides):
        raise UserError(f"overrides are {config.overrides}; write them as \"('KEY=VALUE',)\"")
    if importlib.util.find_spec("submitit") is None:
        raise UserError("sweeps need submitit; pip install 'mtm_jax[cluster]'")


def make_tasks(config: config_dict.ConfigDict) -> list[Task]:
    """Build the command line of every job, and parse each as the job will.

    Raises:
        UserError: there is no such program, or a command line is wrong or occurs twice.
    """
    name = config.experiment
    if not name.isidentifier() or not importlib.util.find_spec(f"experiments.{name}"):
        raise UserError(f"there is no program experiments.{name}; --config.experiment names one")
    tasks = [make_task(config, n, s) for n, s in itertools.product(*choices(config))]
    for task in tasks:
        cli.parse(task.command[3:], f"configs/{name}.py")
    folders = [[k for k in t.command if k.startswith("--config.out=")] for t in tasks]
    same = len({tuple(t.command) for t in tasks}) < len(tasks)
    if same or (any(folders) and len({f[-1] for f in folders}) < len(tasks)):
        raise UserError(
            "two jobs of this sweep would write into the same folder; name each data set and seed "
            "once, and write out=FOLDER/{name}-{seed}"
        )
    return tasks


def choices(config: config_dict.ConfigDict) -> tuple[Sequence[str | None], Sequence[int | None]]:
    """Collect names and seeds; None means that the program is given none."""
    return tuple(config.names) or (None,), tuple(config.seeds) or (None,)


def make_task(config: config_dict.ConfigDict, name: str | None, seed: int | None) -> Task:
    """Build the command line of a job."""
    program = config.experiment
    command = [sys.executable, "-m", f"experiments.{program}"]
    command.append(f"--config=configs/{program}.py" + (f":{name}" if name else ""))
    if seed is not None:
        command.append(f"--config.seed={seed}")
    for override in config.overrides:
        filled = override.replace("{name}", str(name)).replace("{seed}", str(seed))
        command.append(f"--config.{filled}")
    parts = (program, name, None if seed is None else f"seed {seed}")
    return Task(" ".join(p for p in parts if p), command)


def make_executor(config: config_dict.ConfigDict) -> Any:
    """Make submitit's executor.

    Raises:
        UserError: this machine has no Slurm.
    """
    import submitit

    folder = pathlib.Path(config.folder).absolute()
    minutes = max(1, round(60 * config.hours))
    common = {"timeout_min": minutes, "gpus_per_node": config.gpus, "stderr_to_stdout": True}
    if config.executor == "local":
        executor = submitit.LocalExecutor(folder / "%j", max_num_timeout=config.requeues)
        executor.update_parameters(**common)
        return executor
    try:
        executor = submitit.SlurmExecutor(folder / "%j", max_num_timeout=config.requeues)
    except RuntimeError as error:
        raise UserError(f"{error} Use --config.executor=local on one machine") from error
    common["time"] = common.pop("timeout_min")
    executor.update_parameters(
        **common,
        job_name=f"mtm-{config.experiment}",
        cpus_per_task=config.cpus,
        mem=f"{config.memory_gb}GB",
        array_parallelism=config.parallel,
        signal_delay_s=min(300, 30 * minutes),
        **({"partition": config.partition} if config.partition else {}),
    )
    return executor


def run(tasks: Sequence[Task], executor: Any, parallel: int, cancel: bool) -> list[Ended]:
    """Submit jobs, at most `parallel` at a time, and report when each begins and ends.

    Args:
        tasks: the jobs.
        executor: executor of submitit.
        parallel: largest number of jobs that are submitted and have not ended.
        cancel: whether an interruption of this program cancels the jobs.

    Returns:
        How the jobs ended, in the order of `tasks`.
    """
    waiting, running, ended = list(tasks), {}, []
    try:
        while waiting or running:
            new = [waiting.pop(0) for _ in range(min(parallel - len(running), len(waiting)))]
            jobs = executor.submit_array([sweep_job.Job(t.command) for t in new]) if new else []
            for task, job in zip(new, jobs, strict=True):
                running[task.label] = task, job
                cli.say(f"{task.label}: job {job.job_id}, log {job.paths.stdout}")
            time.sleep(POLL_SECONDS)
            for task, job in [pair for pair in running.values() if pair[1].done()]:
                del running[task.label]
                ended.append(Ended(task, job.job_id, exit_code(job), job.paths.stdout))
                left = f"{len(running)} running or queued, {len(waiting)} to come"
                cli.say(f"{task.label}: {ended[-1].state}; {left}")
    finally:
        for task, job in running.values():  # this program was interrupted
            if cancel:
                job.cancel(check=False)
            said = "cancelled; the same sweep continues it" if cancel else "goes on"
            cli.say(f"{task.label}: job {job.job_id} {said}")
    return sorted(ended, key=lambda e: list(tasks).index(e.task))


def exit_code(job: Any) -> int:
    """Return the exit code of the program of a job."""
    return NO_RESULT if job.exception() else job.result()


def table(ended: Sequence[Ended]) -> rich.table.Table:
    """Tabulate how jobs ended."""
    grid = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    for title in ("job", "what", "state", "exit code"):
        grid.add_column(title)
    for e in ended:
        grid.add_row(e.job, e.task.label, e.state, "none" if e.code == NO_RESULT else str(e.code))
    return grid


if __name__ == "__main__":
    cli.run(main)
