"""`python -m experiments.data convert`: any source as a Minari data set."""

from __future__ import annotations

import dataclasses
import logging
import pathlib
import re

import numpy as np
from ml_collections import config_dict

from experiments.data import inspect as data_inspect
from mtm_jax.data import info as data_info
from mtm_jax.data.minari import reader as minari
from mtm_jax.data.minari import writer as minari_writer
from mtm_jax.errors import UserError
from mtm_jax.types import Trajectories

_LOG = logging.getLogger("mtm_jax")
_DATASET_ID = re.compile(r"[-\w]+(/[-\w]+)*-v\d+", re.ASCII)


def main(config: config_dict.ConfigDict) -> None:
    """Load, fill what Minari needs, write, and say where."""
    root = pathlib.Path(config.root).expanduser() if config.root else minari.roots()[-1]
    _check_target(root, config.dataset_id)
    trajectories = data_inspect.load(config)
    _check_complete(trajectories)
    filled, notes = _fill(trajectories)
    origin = {"source": config.source, "name": trajectories.info.name} | notes
    folder = minari_writer.write(filled, config.dataset_id, root, {"mtm_jax_converted": origin})
    print(
        f"wrote {len(filled.lengths):,} episodes, {len(filled.rewards):,} steps to {folder}; "
        f"{_how_to_load(config, folder, trajectories)}"
    )


def _fill(trajectories: Trajectories) -> tuple[Trajectories, dict]:
    """Make up for what Minari needs or cannot say; return also what the metadata say about it."""
    filled, repeated = repeat_last(trajectories)
    notes = {}
    if repeated:
        _LOG.warning(
            "Minari needs the observation after the last step, which %d of %d episodes lack; "
            "their last observation is repeated in its place",
            *(repeated, len(trajectories.lengths)),
        )
        notes["final_observations_repeated"] = repeated
    if trajectories.train is not None:
        _LOG.warning("Minari has no place for the split of the data; it is kept in the metadata")
        notes["train_episodes"] = np.flatnonzero(trajectories.train).tolist()
    return filled, notes


def repeat_last(trajectories: Trajectories) -> tuple[Trajectories, int]:
    """Put the last observation in place of an unknown final one.

    Returns:
        The trajectories, and the number of episodes in which it was unknown.
    """
    final = trajectories.final_observations
    unknown = np.isnan(final).all(axis=-1)  # [episodes]
    last = trajectories.observations[np.cumsum(trajectories.lengths) - 1]
    filled = np.where(unknown[:, None], last, final)
    return dataclasses.replace(trajectories, final_observations=filled), int(unknown.sum())


def _how_to_load(
    config: config_dict.ConfigDict, folder: pathlib.Path, trajectories: Trajectories
) -> str:
    """Say which source leads there, with a name of the same environment and reward."""
    known = folder in (root / config.dataset_id for root in minari.roots())
    source = f"minari:{config.dataset_id}" if known else str(folder)
    name = trajectories.info.name
    if data_info.find_env(name) is None and not name.startswith("custom"):
        name = f"custom-{name}"
    return f"load it with the source {source} and the name {name}"


def _check_target(root: pathlib.Path, dataset_id: str) -> None:
    """Refuse before the work what would be refused after it."""
    if not _DATASET_ID.fullmatch(dataset_id):
        raise UserError(
            f"{dataset_id!r} is no Minari id; write one like mine/hopper/medium-v0, "
            "of letters, digits, - and _, with a version at the end"
        )
    if (root / dataset_id).exists():
        raise UserError(f"there is a data set in {root / dataset_id} already; choose another id")


def _check_complete(trajectories: Trajectories) -> None:
    """Refuse data in which some episodes lack a modality: Minari cannot say that they do."""
    for name, has in trajectories.available.items():
        if not has.all():
            raise UserError(
                f"{(~has).sum()} of {len(has)} episodes of {trajectories.info.name} have no "
                f"{name}, which a Minari data set cannot mark; convert the other episodes only"
            )
