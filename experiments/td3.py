"""Train TD3 or TD3+BC on recorded data and evaluate it.

    python -m experiments.td3 --config=configs/td3.py:hopper-medium,variant=td3_bc
    python -m experiments.td3 --config=configs/td3.py:walker_run-explore --config.features.run=RUN

The same command continues an interrupted training, and shows the results of a finished one. With
--config.seeds several seeds are trained in one program.
The run folder holds config.json, metrics.jsonl, results.jsonl, checkpoints and figures.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import config_dict

from experiments import critic
from experiments.runtime import cli, evaluation
from experiments.training import build, loop, nonfinite, td3_features, td3_run
from experiments.training.group_trainer import GroupTrainer
from experiments.training.td3_run import TD3Run
from mtm_jax.agents import td3_actor
from mtm_jax.config import TD3Config
from mtm_jax.data import info as data_info
from mtm_jax.envs import make, registry, rollout
from mtm_jax.errors import UserError
from mtm_jax.io import results
from mtm_jax.plots import learning_curves
from mtm_jax.training import dataset, program, td3


def main(config: config_dict.ConfigDict) -> None:
    """Check, load, build, resume, train, evaluate."""
    check(config)
    if spec := data_info.find_env(config.env):
        make.load_suite(spec)  # a missing library is said now, not after training
    runs = [TD3Run(one) for one in td3_run.expand(config)]
    data = load_data(config)
    critic.check_data(data)
    algorithm = make_algorithm(config, data)
    for run in runs:
        run.open(algorithm, data.stats)
    pending = [run for run in runs if not show_stored(run)]
    if not pending:
        return
    cli.say(build.summary(data))
    trainer = Trainer(pending, data, algorithm)
    loop.run(trainer, schedule(config, data), "TD3", "updates")
    finish(pending, trainer, data)


def check(config: config_dict.ConfigDict) -> None:
    """Refuse settings before data are read and the run folder is made.

    Raises:
        UserError: an interval, a number of updates or a setting is out of range.
    """
    for key in ("steps", "log_every", "save_every"):
        if config[key] < 1:
            raise UserError(f"{key} is {config[key]} updates; it must be at least 1")
    if config.eval.every < 0 or config.eval.every % config.log_every:
        raise UserError(
            f"eval.every is {config.eval.every} updates and log_every {config.log_every}; give a "
            "multiple of it, or 0 for no evaluations on the way"
        )
    for key in ("episodes", "episodes_on_the_way"):
        if config.eval[key] < 1:
            raise UserError(f"eval.{key} is {config.eval[key]}; it must be at least 1")
    if config.data.steps is not None and config.data.steps < 1:
        raise UserError(f"data.steps is {config.data.steps}; it must be at least 1")
    seeds = {"seed": config.seed, "data.split_seed": config.data.split_seed}
    for key, value in (seeds | {"eval.seed": config.eval.seed}).items():
        if value < 0:
            raise UserError(f"{key} is {value}; it must not be negative")
    td3_features.check(config.features)
    settings_of(config, unit=1.0)


def load_data(config: config_dict.ConfigDict) -> build.Data:
    """Load and split the data as a pretraining run does; its windows are single steps."""
    settings = config.copy_and_resolve_references()
    with settings.unlocked():
        settings.model = config_dict.ConfigDict({"window": 1})
        whole = {"episodes_fraction": 1.0, "actions_fraction": 1.0, "labelled_share": 0.0}
        settings.data.update(whole)
    return build.load_data(settings)


def make_algorithm(config: config_dict.ConfigDict, data: build.Data) -> td3.TD3:
    """Build networks, features and optimiser for a data set."""
    unit = config.td3.unit
    unit = critic.typical_value(data, config.td3.discount) if unit is None else unit
    features = td3_features.make(config.features, data)
    return td3.make_td3(settings_of(config, unit), features, critic.dimensions(data)[1])


def settings_of(config: config_dict.ConfigDict, unit: float) -> TD3Config:
    """Collect the settings of the training program."""
    return TD3Config(**(dict(config.td3) | {"unit": unit, "total_steps": config.steps}))


def show_stored(run: TD3Run) -> bool:
    """Print the results of a finished run; return whether it is one."""
    stored = run.stored_results()
    if stored:
        results.print_results(stored)
        cli.say(f"the run in {run.folder} is finished; delete it to train it anew")
    return bool(stored)


def schedule(config: config_dict.ConfigDict, data: build.Data) -> loop.Schedule:
    """Say when something is due."""
    return loop.Schedule(
        total=config.steps,
        call=config.log_every,
        log=config.log_every,
        save=config.save_every,
        validate=(config.eval.every or None) if data.info.env_id else None,
    )


class Trainer(GroupTrainer):
    """Trains all runs in one program, and lets their actors act."""

    def __init__(self, runs: Sequence[TD3Run], data: build.Data, algorithm: td3.TD3):
        """Build the program, which compiles when it is first called."""
        training = td3.make_training(algorithm, critic.dimensions(data)[0])
        self._read = td3.make_data(algorithm.features, data.train)
        self._choose, self._info = td3_actor.compile_actor(algorithm), data.info
        super().__init__(runs, [guard(run, training) for run in runs], self._read, summary)

    def play(self, episodes: int) -> list[rollout.Episodes]:
        """Let the present actor of every run act in the same episodes."""
        actors = [state.actor for state in self.states()]
        params = jax.tree.map(lambda *x: jnp.stack(x), *actors)
        config = self.runs[0].config
        settings = config_dict.ConfigDict({"episodes": episodes, "seed": config.eval.seed})
        actor = td3_actor.Policies(self._choose, params, self._read.features)
        played = evaluation.play(self._info, config.variant, actor, settings, len(actors))
        return rollout.split(played, len(actors))

    def validate(self) -> list[loop.Row]:
        """Measure the present actors in a few episodes."""
        spec = registry.spec_of_id(self._info.env_id)
        return [
            {
                "eval/return": float(np.mean(part.returns)),
                "eval/score": float(np.mean(registry.normalized_score(spec, part.returns))),
            }
            for part in self.play(self.runs[0].config.eval.episodes_on_the_way)
        ]


def summary(rows: Sequence[loop.Row]) -> str:
    """Describe the first run, for the progress bar."""
    return f"critic loss {rows[0]['critic/loss']:.3g}, value {rows[0]['critic/q_mean']:.1f}"


def guard(run: TD3Run, training: program.Training) -> nonfinite.Guard:
    """Say what a run trains, and what it says when that goes wrong."""
    examine = functools.partial(examine_batch, training.shared)
    advice = "try a lower --config.td3.learning_rate with another --config.out"
    return nonfinite.Guard(training, run.folder, "updates", examine, advice)


def examine_batch(settings: TD3Config, state: td3.TD3State, data: td3.Data) -> nonfinite.Examined:
    """Draw the transitions of an update and say which of them are not finite."""
    key = td3.step_keys(state)[0]
    batch = dataset.sample_transitions(key, data.steps, settings.batch_size)
    return nonfinite.examine_rows(batch)


def finish(runs: Sequence[TD3Run], trainer: Trainer, data: build.Data) -> None:
    """Draw the curves and evaluate every run."""
    for run in runs:
        learning_curves.draw(run.folder)
    if not data.info.env_id:
        cli.say(f"{data.info.name} has no simulator here, so nothing is evaluated")
        return
    rows = []
    played = trainer.play(runs[0].config.eval.episodes)
    for run, episodes in zip(runs, played, strict=True):
        rows.append(make_row(run, episodes, data))
        results.write_result(run.folder, rows[-1])
    results.print_results(rows)
    cli.say(f"results are in {', '.join(str(run.folder) for run in runs)}")


def make_row(run: TD3Run, episodes: rollout.Episodes, data: build.Data) -> dict:
    """Build the row of results of one run."""
    config, info = run.config, data.info
    spec = registry.spec_of_id(info.env_id)
    return results.result(
        experiment="td3",
        env_id=info.env_id,
        dataset=info.name,
        method=config.variant,
        seed=config.seed,
        step=config.steps,
        returns=episodes.returns,
        normalized_scores=registry.normalized_score(spec, episodes.returns),
        target_return=None,
        settings={
            "source": info.source,
            "preset": config.preset,
            "eval_seed": config.eval.seed,
            "features": td3_features.describe(config.features),
            "alpha": config.td3.alpha,
        },
        metrics=evaluation.episode_metrics(data, episodes),
    )


if __name__ == "__main__":
    cli.run(main)
