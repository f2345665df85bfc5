"""The critic in a run folder: loading it, and what a checkpoint says of it."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtm_jax import tokens
from mtm_jax.config import CriticConfig
from mtm_jax.errors import UserError
from mtm_jax.io import checkpoint, manifest
from mtm_jax.training import iql

FOLDER = "critic"  # inside the run folder


def load(run: str | pathlib.Path) -> iql.Critic | None:
    """Load the newest critic of a run; None where none has been saved.

    Raises:
        UserError: its checkpoint is damaged.
    """
    folder = pathlib.Path(run) / FOLDER
    if not (folder / "checkpoints").is_dir():
        return None
    checkpoints = checkpoint.Checkpoints(folder, read_only=True)

    def read(step: int) -> tuple[int, dict, dict]:
        meta = checkpoints.restore_meta(step)
        manifest.refuse_other_program(folder, meta, ("critic_config",), "critic")
        return step, meta, checkpoints.restore_model(step)

    offer = "experiments.critic continues from it with --config.use_older=True"
    found = checkpoints.newest(read, offer=offer)
    if found is None:
        return None
    step, meta, saved = found
    config = meta["critic_config"]
    return iql.Critic(
        config=CriticConfig(**(config | {"hidden": tuple(config["hidden"])})),
        params=jax.tree.map(jnp.asarray, saved["params"]),
        stats=tokens.Stats(**jax.tree.map(jnp.asarray, saved["stats"])),
        step=step,
    )


def load_state(run: str | pathlib.Path, critic: iql.Critic) -> iql.IQLState:
    """Load what the training of a run's critic ended with, to train on.

    Args:
        run: the run folder.
        critic: what `load` found in it.

    Raises:
        UserError: its checkpoint is damaged.
    """
    dims = critic.stats.mean.shape[0], _action_dim(critic)
    fresh = iql.init_state(jax.random.key(0), critic.config, *dims)
    checkpoints = checkpoint.Checkpoints(pathlib.Path(run) / FOLDER, read_only=True)
    return checkpoints.restore_train(critic.step, fresh)


def _action_dim(critic: iql.Critic) -> int:
    first = next(iter(critic.params["q"].values()))["layer_0"]["kernel"]
    return first.shape[0] - critic.stats.mean.shape[0]


def check(run: pathlib.Path, critic: iql.Critic | None, stats: tokens.Stats) -> None:
    """Refuse a critic whose states are normalised otherwise than those of the model.

    Raises:
        UserError: it names both statistics.
    """
    for field in ("mean", "std") if critic else ():
        one, other = np.asarray(getattr(critic.stats, field)), np.asarray(getattr(stats, field))
        if one.shape != other.shape or not np.allclose(one, other, rtol=1e-4, atol=1e-6):
            raise UserError(
                f"the critic in {run / FOLDER} is of other data: stats.states.{field} is "
                f"{np.round(one, 4).tolist()} there and {np.round(other, 4).tolist()} in the "
                "model; delete that folder and train a critic for this run"
            )


def describe(critic: iql.Critic) -> dict[str, Any]:
    """Build the JSON that `load` reads back from a checkpoint."""
    return {"critic_config": dataclasses.asdict(critic.config)}
