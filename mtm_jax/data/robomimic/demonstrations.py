"""Reads the arrays of robomimic's demonstrations, one group each."""

from __future__ import annotations

import logging

import h5py
import numpy as np

from mtm_jax.data import endings, episodes, hdf5, successors
from mtm_jax.errors import UserError

_LOG = logging.getLogger("mtm_jax")
# The order within an observation; M3PC appendix D: pose of the hand, gripper, object.
_OBSERVED = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos", "object")
_SUCCESS = 1.0 - 1e-6  # robosuite's shaped rewards reach 1 at success and stay below before


def read(what: str, file: h5py.File, names: list[str]) -> list[dict[str, np.ndarray]]:
    """Read demonstrations, each as the arrays of `Trajectories` that it has, in parts if it jumps.

    Args:
        what: the file, for messages.
        file: the file.
        names: of the demonstrations.

    Raises:
        UserError: one lacks an array, or its arrays do not fit.
    """
    demos, size = [], 0
    for name in names:
        stored = _find_arrays(what, file, name)
        size += sum(map(hdf5.size, stored.values()))  # they may all be links to the same arrays
        hdf5.check_size(what, file.id, size)
        demos.append(_read_demo(f"{what}: data/{name}", stored))
    return demos


def _find_arrays(what: str, file: h5py.File, name: str) -> dict[str, h5py.Dataset]:
    """Find the arrays of one demonstration, which all have one row for each of its steps."""
    demo = file["data"][name]
    what = f"{what}: data/{name}"
    stored = {key: _find(what, demo, key) for key in ("actions", "dones")}
    if "rewards" in demo:
        stored["rewards"] = _find(what, demo, "rewards")
    stored |= {f"obs/{key}": _find(what, demo, f"obs/{key}") for key in _OBSERVED}
    if "next_obs" in demo:
        stored |= {f"next_obs/{key}": _find(what, demo, f"next_obs/{key}") for key in _OBSERVED}
    unused = [key for key in demo if key in endings.NAMES and key != "dones"]
    if unused:
        _LOG.warning("%s: not used: %s; dones say which steps succeed", what, ", ".join(unused))
    endings.warn_alike(what, demo)
    _check_rows(what, stored, demo.attrs.get("num_samples"))
    return stored


def _read_demo(what: str, stored: dict[str, h5py.Dataset]) -> dict[str, np.ndarray]:
    arrays = {key: episodes.flat(key.partition("/")[0], hdf5.load(a)) for key, a in stored.items()}
    observations, following = (_joined(arrays, part) for part in ("obs", "next_obs"))
    dones = endings.read_flags(what, "dones", arrays["dones"])
    rewards = _success(arrays.get("rewards", dones))
    last = np.arange(len(dones)) == len(dones) - 1
    terminals = last & dones & (rewards == 1)
    if following is not None and following.shape != observations.shape:
        raise UserError(
            f"{what}: next_obs has {following.shape[1]} numbers per step and obs has "
            f"{observations.shape[1]}; both must have the same parts, so fetch the file again"
        )
    if following is not None:
        jumps = successors.jumps(following, observations)
        last = successors.cut(what, last, terminals, jumps, complete=True)
    return {
        "observations": observations,
        "actions": arrays["actions"],
        "rewards": rewards,
        "terminals": terminals,
        "lengths": np.diff(np.flatnonzero(last), prepend=-1),
        "final_observations": successors.final_observations(following, last, observations.shape[1]),
    }


def _joined(arrays: dict[str, np.ndarray], part: str) -> np.ndarray | None:
    """Join the parts of an observation, [n, S]; None where they are not there."""
    found = [arrays[f"{part}/{key}"] for key in _OBSERVED if f"{part}/{key}" in arrays]
    return np.concatenate(found, axis=1) if found else None


def _success(rewards: np.ndarray) -> np.ndarray:
    """1 where a step ends in success; NaN stays, for the validation to refuse."""
    reached = (rewards >= _SUCCESS).astype(np.float32)
    return np.where(np.isfinite(rewards), reached, rewards).astype(np.float32)


def _find(what: str, demo: h5py.Group, key: str) -> h5py.Dataset:
    if key not in demo:
        raise UserError(
            f"{what} lacks {key}; extract low-dimensional observations with robomimic's "
            "dataset_states_to_obs.py"
        )
    return hdf5.dataset(what, demo, key)


def _check_rows(what: str, stored: dict[str, h5py.Dataset], steps: int | None) -> None:
    """Refuse arrays that do not have one row for each of the steps that the file declares."""
    rows = stored["dones"].shape[:1]
    for key, array in stored.items():
        rank, shape = 1 + ("/" in key or key == "actions"), array.shape
        if len(episodes.flat_shape(key.partition("/")[0], shape)) != rank or shape[:1] != rows:
            raise UserError(
                f"{what}: {key} has shape {list(shape)} and dones has shape {list(rows)}, "
                f"expected {rank} dimension(s) and one row per step; fetch the file again"
            )
    if rows == (0,):
        raise UserError(f"{what} has no steps; fetch the file again")
    if steps is not None and not np.array_equal(np.ravel(steps), rows):
        raise UserError(
            f"{what}: num_samples is {steps} but there are {rows[0]} rows; fetch the file again"
        )
