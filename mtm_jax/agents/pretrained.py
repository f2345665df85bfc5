"""A pretrained run as it is loaded: the model, and everything that acting with it needs."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mtm_jax import tokens
from mtm_jax.agents import critic_files, model_files
from mtm_jax.errors import UserError
from mtm_jax.io import checkpoint, manifest
from mtm_jax.models.trajectory_model import Model, make_model
from mtm_jax.training import iql
from mtm_jax.types import DataInfo

WEIGHTS = ("auto", "latest", "average")  # of a checkpoint; see `load`


@dataclasses.dataclass(frozen=True)
class ReturnSummary:
    """Undiscounted episode returns of the training data; None where they have none."""

    best: float | None
    mean: float | None


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A pretrained model with what acting needs.

    Attributes:
        model, params, stats: the network, its parameters and the statistics of its tokens.
        info: the data set and its environment.
        returns: of the training data.
        history: past steps in view when acting.
        step: optimiser steps of the checkpoint.
        critic: of the same run, if one was trained; `require_critic` insists on it.
        run: the folder that all of this was loaded from, if it was.
        weights: "latest" or "average", what `params` are; empty where there is no such choice.
    """

    model: Model
    params: dict
    stats: Mapping[str, tokens.Stats]
    info: DataInfo
    returns: ReturnSummary
    history: int
    step: int
    critic: iql.Critic | None = None
    run: str = ""
    weights: str = ""

    def require_critic(self) -> iql.Critic:
        """Return the critic.

        Raises:
            UserError: the run has none.
        """
        if self.critic is None:
            raise UserError(
                "this run has no critic; train one with python -m experiments.critic "
                f"--config.run={self.run or 'FOLDER'}"
            )
        return self.critic

    def target_return(self, target_fraction: float) -> float:
        """Return to condition on, undiscounted: 0 asks for the data's mean return, 1 for the best.

        In between it is interpolated, so that a larger fraction asks for more whatever the sign of
        the returns; fractions above 1 ask for more than the data show.

        Raises:
            UserError: the data have no returns, or the fraction is not finite.
        """
        check_fraction(target_fraction)
        if self.returns.best is None or self.returns.mean is None:
            raise UserError(
                f"{self.info.name} has no rewards, so there is no return to ask for; "
                "use the method bc"
            )
        best, mean = self.returns.best, self.returns.mean
        # Exactly the best at 1, whatever the rounding.
        return best - (1.0 - target_fraction) * (best - mean)

    def target_token(self, target_fraction: float) -> Array:
        """Return token of `target_return`: the average reward of a step over the time limit, []."""
        return jnp.float32(self.target_return(target_fraction) / self.info.max_episode_steps)

    def to_environment(self, actions: Array) -> np.ndarray:
        """Map actions from [-1, 1] to the environment's bounds."""
        low, high = np.float32(self.info.action_low), np.float32(self.info.action_high)
        return low + 0.5 * (np.asarray(actions) + 1.0) * (high - low)

    def from_environment(self, actions: np.ndarray) -> Array:
        """Map actions from the environment's bounds to [-1, 1]."""
        low, high = np.float32(self.info.action_low), np.float32(self.info.action_high)
        return jnp.asarray(2.0 * (actions - low) / (high - low) - 1.0)


def require_modalities(agent: Pretrained, role: str, names: Sequence[str]) -> None:
    """Refuse a model that lacks what a role reads or predicts.

    Raises:
        UserError: it names what is missing, and what there is.
    """
    known = [m.name for m in agent.model.config.modalities]
    missing = [name for name in names if name not in known]
    if missing:
        raise UserError(
            f"this model has no {missing[0]}, which {role} needs; it was trained on "
            f"{', '.join(known)}: train one with {missing[0]}"
        )


def check_fraction(target_fraction: float) -> None:
    """Refuse a fraction of the target return that says nothing; see `Pretrained.target_return`.

    Raises:
        UserError: it is not a finite number.
    """
    if not isinstance(target_fraction, Real) or not math.isfinite(target_fraction):
        raise UserError(
            f"target_fraction is {target_fraction!r}; give a finite number: 0 asks for the mean "
            "return of the training data, 1 for the best"
        )


def load(run: str | pathlib.Path, step: int | None = None, weights: str = "auto") -> Pretrained:
    """Load the last checkpoint of a pretraining run.

    Args:
        run: the run folder.
        step: another checkpoint than the last.
        weights: "latest", the parameters after the last step; "average", their running average;
            "auto", the average where one was trained.

    Raises:
        UserError: there is no such run or checkpoint, it is damaged, or it has no average.
    """
    run = pathlib.Path(run)
    if weights not in WEIGHTS:
        raise UserError(f"weights are {weights!r}; choose {', '.join(WEIGHTS)}")
    if not (run / "checkpoints").is_dir():
        raise UserError(f"no run in {run}: it has no folder 'checkpoints'; give a run folder")
    checkpoints = checkpoint.Checkpoints(run, read_only=True)
    steps = checkpoints.steps()
    if not steps or (step is not None and step not in steps):
        wanted = "a checkpoint" if step is None else f"a checkpoint of step {step}"
        raise UserError(f"run {run} does not have {wanted}; it has those of steps {steps}")

    def read(step: int) -> tuple[int, dict, dict]:
        meta = checkpoints.restore_meta(step)
        manifest.refuse_other_program(
            run, meta, ("model_config", "info", "returns", "history"), "pretrained model"
        )
        return step, meta, checkpoints.restore_model(step)

    offer = "step={step} loads it, experiments.pretrain continues from it with --config.use_older"
    step, meta, saved = checkpoints.newest(read, offer=offer) if step is None else read(step)
    params, taken = _choose_weights(run, saved, weights)
    stats = {m: tokens.Stats(**s) for m, s in saved["stats"].items()}
    critic = critic_files.load(run)
    critic_files.check(run, critic, stats["states"])
    return Pretrained(
        model=make_model(model_files.config_from_dict(meta["model_config"])),
        params=jax.tree.map(jnp.asarray, params),
        stats=stats,
        info=info_from_json(meta["info"]),
        returns=ReturnSummary(**meta["returns"]),
        history=meta["history"],
        step=step,
        critic=critic,
        run=str(run),
        weights=taken,
    )


def _choose_weights(run: pathlib.Path, saved: Mapping[str, Any], weights: str) -> tuple[dict, str]:
    """Choose parameters of a checkpoint, as `load` was told, and say which these are."""
    if weights == "average" and "average" not in saved:
        raise UserError(
            f"run {run} was trained without an average of its parameters; choose "
            "weights='latest', or train another run with --config.optim.average=0.999"
        )
    if "average" not in saved:
        return saved["params"], ""
    return (saved["params"], "latest") if weights == "latest" else (saved["average"], "average")


def with_precision(agent: Pretrained, compute_dtype: str) -> Pretrained:
    """Compute matmuls in another precision, "float32" or "bfloat16"; "" leaves it as trained.

    Parameters, statistics and what is not a matmul stay float32.
    """
    if compute_dtype in ("", agent.model.config.compute_dtype):
        return agent
    config = dataclasses.replace(agent.model.config, compute_dtype=compute_dtype)
    return dataclasses.replace(agent, model=make_model(config))


def describe(agent: Pretrained) -> dict[str, Any]:
    """Build the JSON that `load` reads back from a checkpoint."""
    return {
        "model_config": model_files.config_to_dict(agent.model.config),
        "info": dataclasses.asdict(agent.info),
        "returns": dataclasses.asdict(agent.returns),
        "history": agent.history,
    }


def info_from_json(data: Mapping[str, Any]) -> DataInfo:
    """Rebuild a DataInfo from its JSON form."""
    bounds = {k: tuple(data[k]) for k in ("action_low", "action_high")}
    return DataInfo(**(dict(data) | bounds))
