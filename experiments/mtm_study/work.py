"""One job of a study: train a recipe on a data set with all seeds, evaluate it, write the rows."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import config_dict

from configs import mtm_study as page
from experiments import pretrain
from experiments.arena import entries, jobs
from experiments.runtime import evaluation
from experiments.training import build, loop, nonfinite
from mtm_jax.agents import baseline, pretrained
from mtm_jax.config import MLPConfig, OptimConfig
from mtm_jax.envs import registry, rollout
from mtm_jax.errors import UserError
from mtm_jax.io import records, results
from mtm_jax.training import held_out, mlp, program


def work(config: config_dict.ConfigDict, job: jobs.Job) -> None:
    """Train what is not trained, and evaluate."""
    settings = entries.pretraining(config, job.recipe, job.name)
    if job.recipe in page.MLP_ROLES:
        of_mlps(config, job, settings)
        return
    pretrain.train(settings)
    folders = entries.seed_folders(config, job.recipe, job.name)
    for name in job.actings:
        if name in held_out.QUESTIONS:
            ask(folders, job.recipe, name, settings)
        else:
            jobs.evaluate(entries.acting(config, name), folders, job.recipe, "mtm_study")


def ask(
    folders: Sequence[pathlib.Path], recipe: str, question: str, settings: config_dict.ConfigDict
) -> None:
    """Measure the held-out errors of trained models."""
    data, window = build.load_data(settings), settings.model.window
    for folder in folders:
        agent = pretrained.load(folder)
        answer = held_out.of_model(agent.model, agent.stats, question)
        found = held_out.errors(answer, agent.params, agent.stats, question, data.valid, window)
        run = {"recipe": recipe, "seed": int(folder.name.removeprefix("seed")), "step": agent.step}
        write_errors(folder.parent, found, question, data, settings, run)


def write_errors(
    folder: pathlib.Path,
    errors: np.ndarray,
    question: str,
    data: build.Data,
    settings: config_dict.ConfigDict,
    run: dict,
) -> None:
    """Write a row of errors, in place of an earlier one of the same model."""
    row = {
        "experiment": "mtm_study",
        "dataset": data.info.name,
        "method": question,
        "seed": run["seed"],
        "step": run["step"],
        "errors": [float(x) for x in errors],
        "settings": {
            "recipe": run["recipe"],
            "acting": question,
            "source": data.info.source,
            "preset": settings.preset,
            "variant": settings.variant,
            "window": settings.model.window,
        },
        "versions": results.versions(),
    }
    same = lambda old: all(old[k] == row[k] for k in row if k not in ("errors", "versions"))  # noqa: E731
    records.put(folder / entries.ERRORS, row, same)


def of_mlps(
    config: config_dict.ConfigDict, job: jobs.Job, settings: config_dict.ConfigDict
) -> None:
    """Train the MLPs of all seeds, which takes too little time to be saved, and evaluate them."""
    short = settings.copy_and_resolve_references()
    short.model.window = mlp.PAIR
    data, network = build.load_data(short), mlp_config(page.MLP_ROLES[job.recipe], settings)
    trainer = Trainer(network, data, range(config.seed, config.seed + config.seeds))
    loop.run(trainer, loop.Schedule(settings.steps, *[settings.log_every] * 3), job.label)
    entries.runs_folder(config, job.recipe, job.name).mkdir(parents=True, exist_ok=True)
    for name in job.actings:
        if name in held_out.QUESTIONS:
            ask_mlps(config, job, settings, data, trainer)
        else:
            play(config, job, data, baseline.Baselines(network, data.stats, trainer.params()))


def ask_mlps(
    config: config_dict.ConfigDict,
    job: jobs.Job,
    settings: config_dict.ConfigDict,
    data: build.Data,
    trainer: Trainer,
) -> None:
    """Measure the held-out errors of MLPs, on the windows that the other models are asked about."""
    role, params = trainer.config.role, trainer.params()
    held, window = build.load_data(settings).valid, settings.model.window
    answer = held_out.of_mlp(trainer.config, data.stats)
    for k in range(config.seeds):
        own = program.member(params, k)
        found = held_out.errors(answer, own, data.stats, role, held, window)
        run = {"recipe": job.recipe, "seed": config.seed + k, "step": settings.steps}
        folder = entries.runs_folder(config, job.recipe, job.name)
        write_errors(folder, found, role, data, settings, run)


def mlp_config(role: str, settings: config_dict.ConfigDict) -> MLPConfig:
    """Size an MLP by the preset of a pretraining; it takes as many steps."""
    size = dict(page.MLPS[settings.preset])
    optim = OptimConfig(
        learning_rate=size.pop("learning_rate"),
        warmup_steps=min(5_000, settings.steps // 10),
        total_steps=settings.steps,
        average=settings.optim.average,
    )
    return MLPConfig(role, optim=optim, **size)


class Trainer:
    """Trains MLPs of several seeds in one program; see `loop.Trainer`. Nothing is stored."""

    def __init__(self, config: MLPConfig, data: build.Data, seeds: Sequence[int]):
        """Draw the initial parameters."""
        self.step, self.config, self._data = 0, config, data.train
        training = mlp.make_training(config, data.stats)
        self._program = program.make_group_program([training] * len(seeds))
        self._states = self._program.init(jnp.stack([jax.random.key(s) for s in seeds]))

    def hold(self) -> contextlib.AbstractContextManager:
        """Hold nothing: there is no folder."""
        return contextlib.nullcontext()

    def resume(self) -> None:
        """Begin anew."""

    def validate(self) -> list[loop.Row]:
        """Measure nothing: the held-out errors come after training."""
        return []

    def log(self, rows: Sequence[loop.Row]) -> None:
        """Keep no metrics."""

    def save(self, rows: Sequence[loop.Row] | None) -> None:
        """Keep no checkpoint."""

    def run(self, length: int) -> list[loop.Row]:
        """Train for some steps."""
        self._states, metrics = self._program.run(self._states, self._data, length)
        self.step += length
        return nonfinite.rows_of(metrics)

    def summary(self, rows: Sequence[loop.Row]) -> str:
        """Say the mean loss."""
        return f"loss {np.mean([row['train/loss'] for row in rows]):.3f}"

    def params(self) -> dict:
        """Give the parameters that act, with a leading axis of seeds."""
        return jax.vmap(mlp.acting)(self._states)


def play(
    config: config_dict.ConfigDict, job: jobs.Job, data: build.Data, actor: baseline.Baselines
) -> None:
    """Play the episodes of MLPs of all seeds side by side, in those of the other recipes."""
    info, role = data.info, actor.config.role
    if role == "rcbc" and data.returns.best is None:
        raise UserError(f"{info.name} has no rewards, so there is no return to ask for; use mlp_bc")
    asked = entries.acting(config, role).config.eval
    target = data.returns.best if role == "rcbc" else None
    actor = actor._replace(target=(target or 0.0) / info.max_episode_steps)
    episodes = evaluation.play(info, job.recipe, actor, asked, config.seeds)
    for seed, part in enumerate(rollout.split(episodes, config.seeds), start=config.seed):
        scores = registry.normalized_score(registry.spec_of_id(info.env_id), part.returns)
        row = results.result(
            experiment="mtm_study",
            env_id=info.env_id,
            dataset=info.name,
            method=job.recipe,
            seed=seed,
            step=actor.config.optim.total_steps,
            returns=part.returns,
            normalized_scores=scores,
            target_return=target,
            settings={
                "recipe": job.recipe,
                "acting": role,
                "source": info.source,
                "preset": config.preset,
                "hidden": list(actor.config.hidden),
                "eval_seed": asked.seed,
            },
        )
        results.write_result(entries.runs_folder(config, job.recipe, job.name), row)
