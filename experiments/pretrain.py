"""Pretrain a masked trajectory model, then evaluate it as a policy.

Running the same command again continues an interrupted run, and shows the results of a finished
one; experiments.evaluate evaluates it again. Several seeds, learning rates or entropy targets are
trained in one program; each has a run folder of its own (see experiments/training/group.py).
The run folder holds config.json, metrics.jsonl, results.jsonl, checkpoints and figures.
"""

from __future__ import annotations

import contextlib
import pathlib
import signal
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
from jax.sharding import Mesh
from ml_collections import config_dict

from experiments.runtime import cli, compilation, distributed, evaluation, machine, runs, signals
from experiments.training import build, debug_batch, group, nonfinite, pretrain_run
from experiments.training.pretrain_run import Run
from mtm_jax.data import info as data_info
from mtm_jax.envs import make
from mtm_jax.errors import UserError
from mtm_jax.io import progress, results
from mtm_jax.models import trajectory_model as model
from mtm_jax.plots import figures
from mtm_jax.training import pretrain, sharding
from mtm_jax.training import validation as held_out

MAX_SEED = 2**32


class Task(NamedTuple):
    """What all runs of one program share."""

    config: config_dict.ConfigDict  # of the first
    data: build.Data
    network: model.Model
    mesh: Mesh | None = None


def main(config: config_dict.ConfigDict) -> None:
    """Load the data, train, save, evaluate, draw."""
    started = time.monotonic()
    check(config)
    if spec := data_info.find_env(config.env):
        make.load_suite(spec)  # a missing library is said now, not after training
    every = [Run(member) for member in group.members(config)]
    for run in every:
        run.check_folder()
    task = load(every)
    if config.debug_batch:
        replay(task, every)
        return
    for run in every:
        run.open(task.data, task.network)
    announce(task, every)
    pending = [run for run in every if not show_stored(run)]
    if not pending:
        return
    task = spread(task, pending)
    states = train(task, pending)
    if sharding.is_main():
        finish(task, pending, states, started)


def check(config: config_dict.ConfigDict) -> None:
    """Refuse settings before data are read and the run folder is made.

    Raises:
        UserError: an interval, the split's seed or a setting of the evaluation is out of range.
    """
    for key in ("log_every", "validate_every", "save_every"):
        if config[key] < 1:
            raise UserError(f"{key} is {config[key]} steps; it must be at least 1")
    if config.data.steps is not None and config.data.steps < 1:
        raise UserError(f"data.steps is {config.data.steps}; it must be at least 1")
    if config.data.split_seed < 0:
        raise UserError(f"data.split_seed is {config.data.split_seed}; it must not be negative")
    if not 0 < config.data.actions_fraction <= 1:
        raise UserError(
            f"data.actions_fraction is {config.data.actions_fraction}; it must lie in (0, 1]"
        )
    if not 0 <= config.seed <= MAX_SEED - config.seeds:
        several = f" with {config.seeds} seeds" if config.seeds > 1 else ""
        raise UserError(f"seed is {config.seed}; it must be from 0 to {MAX_SEED - 1}{several}")
    if not 0 <= config.optim.warmup_fraction <= 1:
        raise UserError(
            f"optim.warmup_fraction is {config.optim.warmup_fraction}; it must be in [0, 1]"
        )
    history, window = config.eval.history, config.model.window
    if not 0 <= history < window:
        raise UserError(
            f"eval.history is {history}; with a window of {window} it must be "
            f"from 0 to {window - 1}"
        )
    if config.keep_best < 0:
        raise UserError(f"keep_best is {config.keep_best} checkpoints; give a number from 0 on")
    evaluation.check(config.eval)


def load(every: Sequence[Run]) -> Task:
    """Load the data and build the model that all runs share."""
    config = every[0].config
    data = build.load_data(config)
    return Task(config, data, model.make_model(build.pretrain_config(config, data).model))


def spread(task: Task, every: Sequence[Run]) -> Task:
    """Divide the runs that are to be trained among all devices; see `sharding.make_mesh`."""
    mesh = sharding.make_mesh(every[0].settings, len(every))
    train = sharding.replicate(task.data.train, mesh)
    return task._replace(mesh=mesh, data=task.data._replace(train=train))


def replay(task: Task, every: Sequence[Run]) -> None:
    """Repeat the step that `debug_batch` names.

    Raises:
        UserError: several runs are named, or the file is of none of them.
    """
    if len(every) > 1:
        raise UserError(f"debug_batch is a file of one run, and {len(every)} are named; name one")
    settings = build.pretrain_config(task.config, task.data)
    program = debug_batch.Program(settings, task.network, task.data.stats)
    state = pretrain.make_trainer(settings, task.network, task.data.stats).init(
        jax.random.key(task.config.seed)
    )
    debug_batch.replay(pathlib.Path(task.config.debug_batch), program, state)


def announce(task: Task, every: Sequence[Run]) -> None:
    """Say what will be trained, on what and where to."""
    cli.say(
        f"preset [bold]{task.config.preset}[/] on {machine.describe()}, "
        f"computing in {every[0].settings.model.compute_dtype}"
    )
    cli.say(build.summary(task.data))
    for run in every:
        cli.say(f"run folder {run.folder}")


def show_stored(run: Run) -> bool:
    """Print the results of a finished run; return whether it is one."""
    stored = run.stored_results()
    if stored:
        results.print_results(stored)
        cli.say("this run is finished; experiments.evaluate evaluates it with other settings")
    return bool(stored)


def train(task: Task, every: Sequence[Run]) -> list[pretrain.TrainState]:
    """Train to the last step; return the state of each run."""
    together = compiled(task, every)
    with contextlib.ExitStack() as held:
        for run in every:
            held.enter_context(run.hold())
        interrupted = held.enter_context(signals.interruptible())
        states = sharding.main_first(lambda: restore(task, every))
        state = sharding.distribute(together.join(states), task.mesh, not together.alone)
        state = steps(task, every, together, state, interrupted)
    state = sharding.local(state, task.mesh)
    states = [together.part(state, k) for k in range(len(every))]
    signals.leave(interrupted, int(states[0].step))
    return states


def compiled(task: Task, every: Sequence[Run]) -> group.Together:
    """Build the program of all runs, which compiles when it is called."""
    network, stats = task.network, task.data.stats
    settings = [run.settings for run in every]
    guards = []
    for run in every:
        own = run.settings
        alone = sharding.over_devices(
            lambda axis, own=own: pretrain.make_trainer(own, network, stats, axis),
            task.mesh if len(every) == 1 else None,
        )
        guards.append(
            nonfinite.Guard(
                *(alone, run.folder),
                examine=debug_batch.Program(own, network, stats).examine,
                advice="try a lower --config.optim.learning_rate with another --config.out",
            )
        )
    trainer = alone
    if len(every) > 1:
        trainer = sharding.group_over_devices(
            lambda axis, members: pretrain.make_group_trainer(
                settings, network, stats, axis, members
            ),
            task.mesh,
        )
    validate = held_out.make_validation(settings[0], network, stats)
    return group.Together(trainer, guards, validate, task.mesh)


def restore(task: Task, every: Sequence[Run]) -> list[pretrain.TrainState]:
    """Continue every run from the newest step that all have a checkpoint of."""
    checkpoints = [run.open_checkpoints() for run in every]
    step = group.common_step(checkpoints)
    if step is not None:
        cli.say(f"not all runs were saved as far as the others: all go on from step {step}")
    init = pretrain.make_trainer(every[0].settings, task.network, task.data.stats).init
    states = [run.restore(init(jax.random.key(run.config.seed)), step) for run in every]
    group.go_back(checkpoints, step)
    return states


def steps(
    task: Task,
    every: Sequence[Run],
    together: group.Together,
    state: pretrain.TrainState,
    interrupted: signals.Interrupted,
) -> pretrain.TrainState:
    """Run to the last step in compiled calls of `log_every` steps, logging after each."""
    config, data = task.config, task.data
    validation_key = jax.random.key(config.data.split_seed)
    step = saved = begun = int(together.part(sharding.local(state.step, task.mesh), 0))
    for run in every:
        run.begin_log(step)

    def save(rows: Sequence[dict | None]) -> None:
        here = sharding.local(state, task.mesh)
        for k, (run, row) in enumerate(zip(every, rows, strict=True)):
            run.save(together.part(here, k), row)

    with (
        compilation.stopwatch() as watch,
        progress.progress(config.steps, "pretraining", start=step) as bar,
    ):
        bar.update(step, "compiling")
        while step < config.steps and not sharding.anywhere(bool(interrupted)):
            length = min(config.log_every, config.steps - step)
            state, rows = together.run(state, data.train, length)
            if step == begun:
                cli.say(f"compiled in {watch.seconds:.1f} s")
                inputs = sharding.local(state.params, task.mesh), data.valid, validation_key
                pretrain_run.check_keep_metric(config, {*rows[0], *together.measured(*inputs)})
            step += length
            last, saves = step == config.steps, due(step, length, config.save_every)
            scored = bool(config.keep_best) and saves
            if due(step, length, config.validate_every) or last or scored:
                params = sharding.local(state.params, task.mesh)
                found = together.validate(params, data.valid, validation_key)
                rows = [row | more for row, more in zip(rows, found, strict=True)]
            for run, row in zip(every, rows, strict=True):
                nonfinite.check(step, length, row)
                run.log(step, row)
            bar.update(step, f"loss {sum(row['train/loss'] for row in rows) / len(rows):.3f}")
            if saves or last:
                save(rows)
                saved = step
    if step < config.steps:
        interrupted.note(signal.SIGTERM)  # perhaps another process was
    if saved < step:
        save([None] * len(every))
    return state


def finish(
    task: Task, every: Sequence[Run], states: Sequence[pretrain.TrainState], started: float
) -> None:
    """Say what training took, and evaluate every run."""
    trained = time.monotonic() - started
    peak = machine.peak_memory()
    rate = machine.matrix_product_rate()
    measured = {"data_and_training_seconds": trained, "matrix_product_gflops": rate, **peak}
    measured |= {"trained_together": len(every)} if len(every) > 1 else {}
    cli.say(machine.say_memory(peak))
    folders = [run.folder for run in every]
    for folder in folders:
        figures.learning_curves(folder)
    where = ", ".join(map(str, folders))
    if not task.data.info.env_id:
        name = task.data.info.name
        cli.say(f"{name} has no simulator here, so nothing is evaluated; see {where}")
        return
    agents = [run.make_agent(state) for run, state in zip(every, states, strict=True)]
    with contextlib.ExitStack() as held:
        for run in every:
            if run.writes:
                held.enter_context(runs.only_writer(run.folder))
        evaluation.evaluate_runs(folders, agents, task.config.eval, "pretrain", measured)
    cli.say(
        f"data and training took {trained:.0f} s, with evaluation "
        f"{time.monotonic() - started:.0f} s, on {rate:.0f} GFLOP/s in matrix products; "
        f"results are in {where}"
    )


def due(step: int, length: int, every: int) -> bool:
    """Whether the last `length` steps passed a multiple of `every`."""
    return step // every > (step - length) // every


if __name__ == "__main__":
    cli.run(main, start=distributed.start)
