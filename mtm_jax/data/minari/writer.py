"""Writes Minari data sets of flat observations and actions (HDF5)."""

from __future__ import annotations

import importlib.metadata
import json
import os
import pathlib
from collections.abc import Mapping

import gymnasium
import h5py
import numpy as np
from minari import serialization

from mtm_jax.data.minari import metadata as minari_metadata
from mtm_jax.errors import UserError
from mtm_jax.io import cache
from mtm_jax.types import Trajectories

FILE = minari_metadata.FILE
METADATA = minari_metadata.METADATA


def write(
    trajectories: Trajectories,
    dataset_id: str,
    root: str | os.PathLike,
    extra: Mapping | None = None,
) -> pathlib.Path:
    """Write a data set that Minari can load, at once or not at all.

    Args:
        trajectories: what to write; the last step of an episode that is not terminal is truncated.
        dataset_id: its Minari id, like "mtm_jax/hopper-medium-200000-seed0-v0".
        root: the folder that ids are looked up in.
        extra: further metadata, JSON-like.

    Returns:
        The folder of the data set.

    Raises:
        UserError: it is not an id, or there is a data set of that id already.
    """
    minari_metadata.check_id(dataset_id)
    final = pathlib.Path(root) / dataset_id
    with cache.staging(final) as staged:
        write_files(trajectories, dataset_id, staged, extra)
        if final.exists() or not cache.publish(staged, final):
            raise UserError(f"there is a data set in {final} already; choose another id")
    return final


def write_files(
    trajectories: Trajectories, dataset_id: str, folder: pathlib.Path, extra: Mapping | None = None
) -> None:
    """Write the files of a data set into `folder`, where there is none yet."""
    data = folder / "data"
    data.mkdir()
    # The newer file format keeps small groups compact, which makes reading twice as fast.
    with h5py.File(data / FILE, "w", libver="latest") as file:
        for k, start in enumerate(trajectories.starts):
            rows = slice(start, start + trajectories.lengths[k])
            _write_episode(file.create_group(f"episode_{k}"), k, trajectories, rows)
    metadata = _metadata(trajectories, dataset_id, data / FILE) | dict(extra or {})
    (data / METADATA).write_text(json.dumps(metadata), encoding="utf-8")


def _write_episode(group: h5py.Group, k: int, trajectories: Trajectories, rows: slice) -> None:
    final = trajectories.final_observations[k : k + 1]
    terminations = trajectories.terminals[rows]
    truncations = np.zeros_like(terminations)
    truncations[-1] = not terminations[-1]
    group.attrs["id"] = k
    group.attrs["total_steps"] = len(terminations)
    observations = np.concatenate([trajectories.observations[rows], final])  # [steps + 1, S]
    group.create_dataset("observations", data=observations)
    group.create_dataset("actions", data=trajectories.actions[rows])
    group.create_dataset("rewards", data=trajectories.rewards[rows])
    group.create_dataset("terminations", data=terminations)
    group.create_dataset("truncations", data=truncations)
    group.create_group("infos")  # empty; without it Minari cannot print an episode


def _metadata(trajectories: Trajectories, dataset_id: str, file: pathlib.Path) -> dict:
    info = trajectories.info
    box = gymnasium.spaces.Box
    observation_space = box(-np.inf, np.inf, trajectories.observations.shape[1:], np.float32)
    action_space = box(np.float32(info.action_low), np.float32(info.action_high), dtype=np.float32)
    metadata = {
        "dataset_id": dataset_id,
        "data_format": "hdf5",
        "minari_version": importlib.metadata.version("minari"),
        "total_episodes": len(trajectories.lengths),
        "total_steps": len(trajectories.rewards),
        "dataset_size": round(file.stat().st_size / 1e6, 1),  # megabytes
        "observation_space": serialization.serialize_space(observation_space),
        "action_space": serialization.serialize_space(action_space),
        "jpeg_encoding": False,
        "sha256": cache.sha256(file),
    }
    if info.env_id in gymnasium.registry:
        metadata["env_spec"] = gymnasium.spec(info.env_id).to_json()
    return metadata
