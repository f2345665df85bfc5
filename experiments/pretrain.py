"""Pretrain a masked trajectory model, then evaluate it as a policy.

Running the same command again continues an interrupted run, and shows the results of a finished
one; experiments.evaluate evaluates it again. Several seeds, learning rates or entropy targets are
trained in one program; each has a run folder of its own.
The run folder holds config.json, metrics.jsonl, results.jsonl, checkpoints and figures.
"""

from __future__ import annotations

import contextlib
import pathlib
import time
from collections.abc import Sequence

import jax
from ml_collections import config_dict

from experiments.runtime import cli, distributed, evaluation, machine
from experiments.runtime import runs as run_folders
from experiments.training import build, debug_batch, loop, nonfinite, pretrain_run, run_configs
from experiments.training.group_trainer import GroupTrainer, Validation
from experiments.training.pretrain_run import PretrainRun
from mtm_jax.data import info as data_info
from mtm_jax.envs import make
from mtm_jax.errors import UserError
from mtm_jax.io import results
from mtm_jax.models import trajectory_model
from mtm_jax.plots import learning_curves
from mtm_jax.training import pretrain, program, sharding, validation

MAX_SEED = 2**32


def main(config: config_dict.ConfigDict) -> None:
    """Check, load, build, resume, train, evaluate."""
    started = time.monotonic()
    runs, data, model = prepare(config)
    if config.debug_batch:
        replay(runs, data, model)
        return
    for run in runs:
        run.open(data, model)
    announce(runs, data)
    pending = [run for run in runs if not show_stored(run)]
    if not pending:
        return
    states = train_all(pending, data, model)
    if sharding.is_main():
        finish(pending, states, data, started)


def train(config: config_dict.ConfigDict) -> None:
    """Train the runs of a configuration to their ends, without evaluating them."""
    runs, data, model = prepare(config)
    for run in runs:
        run.open(data, model)
    announce(runs, data)
    train_all(runs, data, model)


def prepare(
    config: config_dict.ConfigDict,
) -> tuple[list[PretrainRun], build.Data, trajectory_model.Model]:
    """Check everything, load the data, and build the model."""
    check(config)
    if spec := data_info.find_env(config.env):
        make.load_suite(spec)  # a missing library is said now, not after training
    runs = [PretrainRun(one) for one in run_configs.expand(config)]
    for run in runs:
        run.check_folder()
    first = runs[0].config
    data = build.load_data(first)
    return runs, data, trajectory_model.make_model(build.pretrain_config(first, data).model)


def train_all(
    runs: Sequence[PretrainRun], data: build.Data, model: trajectory_model.Model
) -> list[pretrain.TrainState]:
    """Train opened runs in one program; return their last states."""
    trainer = build_trainer(runs, data, model)
    loop.run(trainer, schedule(runs[0].config), "pretraining")
    return trainer.states()  # every process takes part


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
    for key in ("episodes_fraction", "actions_fraction"):
        if not 0 < config.data[key] <= 1:
            raise UserError(f"data.{key} is {config.data[key]}; it must lie in (0, 1]")
    if not 0 <= config.data.labelled_share < 1:
        raise UserError(
            f"data.labelled_share is {config.data.labelled_share}; it must lie in [0, 1)"
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


def replay(runs: Sequence[PretrainRun], data: build.Data, model: trajectory_model.Model) -> None:
    """Repeat the step that `debug_batch` names.

    Raises:
        UserError: several runs are named, or the file is of none of them.
    """
    if len(runs) > 1:
        raise UserError(f"debug_batch is a file of one run, and {len(runs)} are named; name one")
    config = runs[0].config
    step = debug_batch.Step(build.pretrain_config(config, data), model, data.stats)
    like = program.make_program(pretrain.make_training(*step)).init(jax.random.key(config.seed))
    debug_batch.replay(pathlib.Path(config.debug_batch), step, like)


def announce(runs: Sequence[PretrainRun], data: build.Data) -> None:
    """Say what will be trained, on what and where to."""
    first = runs[0]
    cli.say(
        f"preset [bold]{first.config.preset}[/] on {machine.describe()}, "
        f"computing in {first.settings.model.compute_dtype}"
    )
    cli.say(build.summary(data))
    for run in runs:
        cli.say(f"run folder {run.folder}")


def show_stored(run: PretrainRun) -> bool:
    """Print the results of a finished run; return whether it is one."""
    stored = run.stored_results()
    if stored:
        results.print_results(stored)
        cli.say("this run is finished; experiments.evaluate evaluates it with other settings")
    return bool(stored)


def build_trainer(
    runs: Sequence[PretrainRun], data: build.Data, model: trajectory_model.Model
) -> GroupTrainer:
    """Build the program of all runs, on all devices."""
    config, settings = runs[0].config, runs[0].settings
    mesh = sharding.make_mesh(settings, len(runs))
    trainer = GroupTrainer(
        *(runs, [guard(run, data, model) for run in runs]),
        sharding.replicate(data.train, mesh),
        lambda rows: f"loss {sum(row['train/loss'] for row in rows) / len(rows):.3f}",
        Validation(
            validation.make_validation(settings, model, data.stats),
            *(data.valid, jax.random.key(config.data.split_seed), pretrain.acting),
        ),
        mesh,
    )
    if config.keep_best:
        pretrain_run.check_keep_metric(config, trainer.measured())
    return trainer


def guard(run: PretrainRun, data: build.Data, model: trajectory_model.Model) -> nonfinite.Guard:
    """Say what a run trains, and what it says when that goes wrong."""
    return nonfinite.Guard(
        pretrain.make_training(run.settings, model, data.stats),
        run.folder,
        examine=debug_batch.Step(run.settings, model, data.stats).examine,
        advice="try a lower --config.optim.learning_rate with another --config.out",
    )


def schedule(config: config_dict.ConfigDict) -> loop.Schedule:
    """Say when something is due."""
    return loop.Schedule(
        total=config.steps,
        call=config.log_every,
        log=config.log_every,
        validate=config.validate_every,
        save=config.save_every,
        validate_saves=bool(config.keep_best),
    )


def finish(
    runs: Sequence[PretrainRun],
    states: Sequence[pretrain.TrainState],
    data: build.Data,
    started: float,
) -> None:
    """Say what training took, and evaluate every run."""
    trained = time.monotonic() - started
    peak, rate = machine.peak_memory(), machine.matrix_product_rate()
    measured = {"data_and_training_seconds": trained, "matrix_product_gflops": rate, **peak}
    measured |= {"trained_together": len(runs)} if len(runs) > 1 else {}
    cli.say(machine.say_memory(peak))
    folders = [run.folder for run in runs]
    for folder in folders:
        learning_curves.draw(folder)
    where = ", ".join(map(str, folders))
    if not data.info.env_id:
        cli.say(f"{data.info.name} has no simulator here, so nothing is evaluated; see {where}")
        return
    agents = [run.make_agent(state) for run, state in zip(runs, states, strict=True)]
    with contextlib.ExitStack() as held:
        for run in runs:
            if run.writes:
                held.enter_context(run_folders.only_writer(run.folder))
        evaluation.evaluate_runs(folders, agents, runs[0].config.eval, "pretrain", measured)
    cli.say(
        f"data and training took {trained:.0f} s, with evaluation "
        f"{time.monotonic() - started:.0f} s, on {rate:.0f} GFLOP/s in matmuls; "
        f"results are in {where}"
    )


if __name__ == "__main__":
    cli.run(main, start=distributed.start)
