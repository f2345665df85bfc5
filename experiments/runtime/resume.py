"""Continuing a training from its newest checkpoint, if it is of the same model and data."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from experiments.runtime import cli, runs
from mtm_jax import tokens
from mtm_jax.agents import model_files, pretrained
from mtm_jax.config import ModelConfig
from mtm_jax.errors import UserError
from mtm_jax.io import checkpoint, numerics
from mtm_jax.types import DataInfo


def restore(
    state: Any,
    checkpoints: checkpoint.Checkpoints,
    use_older: bool = False,
    check: Callable[[int], None] = lambda step: None,
    step: int | None = None,
) -> Any:
    """Continue from the newest checkpoint, if there is one, or from that of a step.

    Args:
        state: an initial state.
        checkpoints: of the run.
        use_older: whether to skip damaged ones.
        check: refuses the checkpoint of a step.
        step: of the checkpoint; 0: begin anew.

    Raises:
        UserError: it is damaged, refused or of another model.
    """

    def read(step: int) -> tuple[int, Any]:
        check(step)
        return step, checkpoints.restore_train(step, state)

    if step == 0:
        return state
    found = checkpoints.newest(read, use_older) if step is None else read(step)
    if found is None:
        return state
    step, state = found
    say_continuing(checkpoints, step)
    return state


def say_continuing(checkpoints: checkpoint.Checkpoints, step: int) -> None:
    """Say from which step a training continues, and which settings of jax are others now."""
    differ = numerics.differences(checkpoints.restore_meta(step).get("numerics", {}))
    cli.say(f"continuing from step {step}")
    if differ:
        cli.say(f"from here on not bit for bit as it would have been: {'; '.join(differ)}")


def check_agent(
    checkpoints: checkpoint.Checkpoints, step: int, agent: pretrained.Pretrained
) -> None:
    """Hold a checkpoint to the model, data and normalisation that are here now.

    Raises:
        UserError: they differ; it lists in what, with both values.
    """
    meta = checkpoints.restore_meta(step)
    config = model_files.config_from_dict(meta["model_config"])  # fills in what is newer
    info = pretrained.info_from_json(meta["info"])
    old = described(config, info, meta["returns"], meta["history"])
    new = pretrained.describe(agent)
    new = described(agent.model.config, agent.info, new["returns"], agent.history)
    differ = list(runs.differences(old, new).values())
    if not differ:  # else their shapes may differ too
        saved = checkpoints.restore_model(step)["stats"]
        for name, stats in saved.items():
            differ += stats_differences(f"stats.{name}", tokens.Stats(**stats), agent.stats[name])
    if differ:
        raise UserError(
            f"checkpoint {checkpoints.folder / str(step)} is of another model or of other data: "
            f"{'; '.join(differ)}; restore what the run was started with, or choose another "
            "--config.out"
        )


def described(
    config: ModelConfig, info: DataInfo, returns: Mapping[str, Any], history: int
) -> dict[str, Any]:
    """Collect what must not change within a run, as JSON values."""
    model = dataclasses.asdict(config)
    model["modalities"] = {m["name"]: m for m in model["modalities"]}
    for name in ("compute_dtype", "remat"):  # a run may go on on another machine
        model.pop(name)
    found = {"model": model, "data": dataclasses.asdict(info), "history": history}
    return json.loads(json.dumps(found | {"returns": returns}))


def stats_differences(prefix: str, old: tokens.Stats, new: tokens.Stats) -> list[str]:
    """Say in which statistics two normalisations differ, each in its worst dimension."""
    found = []
    for field in ("mean", "std"):
        one, other = np.asarray(getattr(old, field)), np.asarray(getattr(new, field))
        if one.shape != other.shape:
            found.append(f"{prefix}.{field} has {one.size} values there and {other.size} here")
        elif not np.allclose(one, other, rtol=1e-4, atol=1e-6):
            worst = int(np.abs(one - other).argmax())
            values = f"{one[worst]:.6g} there and {other[worst]:.6g} here"
            found.append(f"{prefix}.{field} is {values} in dimension {worst}")
    return found
