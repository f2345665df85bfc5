"""Pretrain a masked trajectory model, then evaluate it as a policy.

Running the same command again continues an interrupted run, and shows the results of a finished
one; experiments.evaluate evaluates it again.
The run folder holds config.json, metrics.jsonl, results.jsonl, checkpoints and figures.
"""

from __future__ import annotations

import contextlib
import functools
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping

import jax
from ml_collections import config_dict

from experiments import (
    build,
    cli,
    compilation,
    debug_batch,
    evaluate,
    machine,
    nonfinite,
    resume,
    runs,
    signals,
)
from mtm_jax import agent as agent_lib
from mtm_jax import (
    checkpoint,
    figures,
    metrics,
    model,
    optim,
    pretrain,
    progress,
    records,
    results,
)
from mtm_jax.config import PretrainConfig
from mtm_jax.data import info as data_info
from mtm_jax.envs import make
from mtm_jax.errors import UserError

MAX_SEED = 2**32


def main(config: config_dict.ConfigDict) -> None:
    """Load the data, train, save, evaluate, draw."""
    started = time.monotonic()
    check(config)
    if spec := data_info.find_env(config.env):
        make.load_suite(spec)  # a missing library is said now, not after training
    folder = pathlib.Path(config.out) if config.out else build.default_out(config)
    runs.check_folder(folder, runs.to_json(config))
    data = build.load_data(config)
    settings = build.pretrain_config(config, data)
    network = model.make_model(settings.model)
    trainer = pretrain.make_trainer(settings, network, data.stats)
    program = debug_batch.Program(settings, network, data.stats)
    if config.debug_batch:
        state = trainer.init(jax.random.key(config.seed))
        debug_batch.replay(pathlib.Path(config.debug_batch), program, state)
        return
    runs.open_run(folder, runs.to_json(config))
    cli.say(f"preset [bold]{config.preset}[/] on {machine.describe()}")
    cli.say(build.summary(data))
    cli.say(f"run folder {folder}")

    if stored := stored_results(folder, config, data.returns):
        results.print_results(stored)
        cli.say("this run is finished; experiments.evaluate evaluates it with other settings")
        return
    guard = nonfinite.Guard(
        *(trainer, folder),
        examine=program.examine,
        advice="try a lower --config.optim.learning_rate with another --config.out",
    )
    with runs.only_writer(folder), signals.interruptible() as interrupted:
        checkpoints = checkpoint.Checkpoints(folder, keep_best=config.keep_best)
        state = trainer.init(jax.random.key(config.seed))
        state = restore(config, data, network, state, checkpoints)

        def save(state: pretrain.TrainState, score: float | None) -> None:
            agent = make_agent(config, data, network, state)
            saved = {"params": state.params, "stats": data.stats}
            checkpoints.save(agent.step, saved, state, agent_lib.describe(agent), score)

        state = train(config, settings, network, data, guard, state, save, folder, interrupted)
    signals.leave(interrupted, int(state.step))
    measured = {
        "data_and_training_seconds": time.monotonic() - started,
        "matrix_product_gflops": machine.matrix_product_rate(),
    }
    figures.learning_curves(folder)
    if not data.info.env_id:
        cli.say(f"{data.info.name} has no simulator here, so nothing is evaluated; see {folder}")
        return
    agent = make_agent(config, data, network, state)
    evaluate.evaluate_run(folder, agent, config.eval, "pretrain", measured)
    seconds, rate = measured["data_and_training_seconds"], measured["matrix_product_gflops"]
    cli.say(
        f"data and training took {seconds:.0f} s, with evaluation {time.monotonic() - started:.0f} "
        f"s, on {rate:.0f} GFLOP/s in matrix products; results are in {folder}"
    )


def check(config: config_dict.ConfigDict) -> None:
    """Refuse settings before data are read and the run folder is made.

    Raises:
        UserError: an interval, the split's seed or a setting of the evaluation is out of range.
    """
    for key in ("log_every", "validate_every", "save_every"):
        if config[key] < 1:
            raise UserError(f"{key} is {config[key]} steps; it must be at least 1")
    if config.data.split_seed < 0:
        raise UserError(f"data.split_seed is {config.data.split_seed}; it must not be negative")
    if not 0 < config.data.actions_fraction <= 1:
        raise UserError(
            f"data.actions_fraction is {config.data.actions_fraction}; it must lie in (0, 1]"
        )
    if not 0 <= config.seed < MAX_SEED:
        raise UserError(f"seed is {config.seed}; it must be from 0 to {MAX_SEED - 1}")
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
    evaluate.check(config.eval)


def stored_results(
    folder: pathlib.Path, config: config_dict.ConfigDict, returns: agent_lib.ReturnSummary
) -> list[dict]:
    """Read the rows that this program wrote for a finished run; none if one is missing."""
    path = folder / results.RESULTS_FILE
    rows = records.read_jsonl(path) if path.exists() else []
    rows = [r for r in rows if (r.get("experiment"), r.get("step")) == ("pretrain", config.steps)]
    wanted = evaluate.feasible(config.eval.methods, returns)
    return rows if {row["method"] for row in rows} >= set(wanted) else []


def make_agent(
    config: config_dict.ConfigDict,
    data: build.Data,
    network: model.Model,
    state: pretrain.TrainState,
) -> agent_lib.Agent:
    """Bundle the present parameters with what acting needs."""
    return agent_lib.Agent(
        model=network,
        params=state.params,
        stats=data.stats,
        info=data.info,
        returns=data.returns,
        history=config.eval.history,
        step=int(state.step),
    )


def restore(
    config: config_dict.ConfigDict,
    data: build.Data,
    network: model.Model,
    state: pretrain.TrainState,
    checkpoints: checkpoint.Checkpoints,
) -> pretrain.TrainState:
    """Continue from the newest checkpoint, if there is one; see `resume.restore`."""
    agent = make_agent(config, data, network, state)
    check = functools.partial(resume.check_agent, checkpoints, agent=agent)
    return resume.restore(state, checkpoints, config.use_older, check)


def train(
    config: config_dict.ConfigDict,
    settings: PretrainConfig,
    network: model.Model,
    data: build.Data,
    guard: nonfinite.Guard,
    state: pretrain.TrainState,
    save: Callable[[pretrain.TrainState, float | None], None],
    folder: pathlib.Path,
    interrupted: signals.Interrupted,
) -> pretrain.TrainState:
    """Run to the last step in compiled calls of `log_every` steps, logging after each."""
    validate = pretrain.make_validation(settings, network, data.stats)
    schedule = optim.make_schedule(settings.optim)
    validation_key = jax.random.key(config.data.split_seed)
    writer = metrics.MetricsWriter(folder)
    step = saved = begun = int(state.step)
    writer.truncate(step)
    with (
        compilation.stopwatch() as watch,
        progress.progress(config.steps, "pretraining", start=step) as bar,
        wandb_writer(config, folder) as wandb,
    ):
        bar.update(step, "compiling")
        while step < config.steps and not interrupted:
            length = min(config.log_every, config.steps - step)
            state, row = guard.run(state, data.train, length)
            if step == begun:
                cli.say(f"compiled in {watch.seconds:.1f} s")
            step += length
            row["train/learning_rate"] = float(schedule(step))
            last, saves = step == config.steps, due(step, length, config.save_every)
            scored = bool(config.keep_best) and saves
            if due(step, length, config.validate_every) or last or scored:
                row |= jax.device_get(validate(state.params, data.valid, validation_key))
                nonfinite.check(step, length, row)
            writer.write(step, row)
            if wandb:
                wandb.write(step, row)
            bar.update(step, f"loss {row['train/loss']:.3f}")
            if saves or last:
                save(state, score_of(row, config))
                saved = step
    if saved < step:
        save(state, None)
    return state


@contextlib.contextmanager
def wandb_writer(
    config: config_dict.ConfigDict, folder: pathlib.Path
) -> Iterator[metrics.WandbWriter | None]:
    """Open the Weights & Biases run that a configuration asks for, if it does."""
    if not config.wandb_project:
        yield None
        return
    writer = metrics.WandbWriter(config.wandb_project, folder.name, runs.to_json(config))
    try:
        yield writer
    finally:
        writer.close()


def due(step: int, length: int, every: int) -> bool:
    """Whether the last `length` steps passed a multiple of `every`."""
    return step // every > (step - length) // every


def score_of(row: Mapping[str, float], config: config_dict.ConfigDict) -> float | None:
    """Read the metric by which the best checkpoints are kept; None where it was not measured.

    Raises:
        UserError: there is no such metric.
    """
    if not config.keep_best or not any(name.startswith("valid/") for name in row):
        return None
    if config.keep_metric not in row:
        names = ", ".join(sorted(name for name in row if "/" in name))
        raise UserError(
            f"there is no metric {config.keep_metric!r} to keep by; choose among {names}"
        )
    return float(row[config.keep_metric])


if __name__ == "__main__":
    cli.run(main)
