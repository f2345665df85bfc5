"""Reads robomimic's low-dimensional HDF5 files (v1.4.1): one group per demonstration.

A demonstration goes on for some steps after its success, with `dones` set at each of them; all its
steps are kept, and only the last one can be terminal.
"""

from __future__ import annotations

import json
import logging
import os
import pathlib
import re

import h5py
import numpy as np

from mtm_jax.data import episodes, hdf5, validation
from mtm_jax.data import info as data_info
from mtm_jax.envs import registry
from mtm_jax.errors import UserError
from mtm_jax.types import DataInfo, Trajectories

_LOG = logging.getLogger("mtm_jax")
# The order within an observation; M3PC appendix D: pose of the hand, gripper, object.
_OBSERVED = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos", "object")
_SUCCESS = 1.0 - 1e-6  # robosuite's shaped rewards reach 1 at success and stay below before


def read(
    path: str | os.PathLike,
    about: DataInfo | str | None = None,
    source: str | None = None,
    filter_key: str | None = None,
) -> Trajectories:
    """Read one file; there is no simulator of it here, so `info.env_id` is "".

    Observations are robot0_eef_pos (3), robot0_eef_quat (4), robot0_gripper_qpos (2) and object
    (10 for Lift, 14 for Can and Square), in this order. The reward of a step is 1 if it ends in
    success and 0 otherwise: stored rewards of 0 and 1 are taken as they are, of shaped ones only
    whether they reach 1, and where there are none `dones` says it. An episode is terminal if its
    last step is done and a success; one that ends without success was cut.

    Args:
        path: the file.
        about: a DataInfo, or a name; by default the file's name. A name that does not start with
            the environment gets it in front, as in lift-low_dim_v141.
        source: what `info.source` says; by default the path.
        filter_key: read only the demonstrations that `mask/<filter_key>` lists.

    Returns:
        Checked trajectories in the order of the demonstrations' numbers; `train` is what
        `mask/train` lists, or what `mask/valid` does not; None where that splits nothing.

    Raises:
        UserError: the file is missing, damaged or not in this layout, or it is not of lift, can
            or square, or not of the environment that `about` names.
    """
    path = pathlib.Path(path).expanduser()
    what = f"file {path}"
    with hdf5.opened(path) as file:
        if not isinstance(file.get("data"), h5py.Group):
            raise UserError(
                f"{what} lacks the group data (it has {', '.join(file) or 'nothing'}); "
                "robomimic's layout is data/demo_0, data/demo_1 and so on"
            )
        if not isinstance(about, DataInfo):
            name, source = about or path.stem, str(path) if source is None else source
            about = _describe(what, file, name, about is not None, source)
        names = _demos(what, file, filter_key)
        demos = _read_demos(what, file, names)
        train = _split(what, file, names)
    cut = sum(not demo["terminals"][-1] for demo in demos)
    if cut:
        _LOG.info(
            "%s: %d of %d demonstrations are cut without success; they are kept as non-terminal "
            "ones",
            *(what, cut, len(demos)),
        )
    return validation.check(_join(what, demos, about, train))


def _describe(what: str, file: h5py.File, name: str, trusted: bool, source: str) -> DataInfo:
    """Take the environment from the file, or from the name where the file does not tell."""
    stored, named = _env_name(file), data_info.find_env(name)
    specs = [s for s in registry.ENVS.values() if s.suite == "robomimic"]
    spec = next((s for s in specs if stored in s.recorded_ids), None)
    if stored is None and named in specs:
        spec = named
    if spec is None:
        raise UserError(
            f"{what} was recorded in {stored or 'an environment that it does not name'}; only "
            f"{', '.join(i for s in specs for i in s.recorded_ids)} are read"
        )
    if trusted and named not in (None, spec):
        raise UserError(
            f"{what} was recorded in {stored}, which is not the {named.name} of {name!r}; name "
            f"{spec.name} instead"
        )
    return data_info.of_env(spec, "", episodes.name_in(spec, name), source)


def _env_name(file: h5py.File) -> str | None:
    """The name in the stored arguments of the environment, of which nothing else is used."""
    try:
        arguments = json.loads(file["data"].attrs.get("env_args", "null"))
    except (TypeError, ValueError, RecursionError):
        return None
    name = arguments.get("env_name") if isinstance(arguments, dict) else None
    return name if isinstance(name, str) else None


def _demos(what: str, file: h5py.File, filter_key: str | None) -> list[str]:
    """Names of the demonstrations, demo_2 before demo_10."""
    names = [
        name
        for name, group in file["data"].items()
        if re.fullmatch("demo_[0-9]+", name) and isinstance(group, h5py.Group)
    ]
    if filter_key is not None:
        kept = _mask(what, file, filter_key)
        absent = sorted(kept - set(names))
        if absent:
            raise UserError(f"{what}: mask/{filter_key} lists {absent[0]}, which is not in data")
        names = [name for name in names if name in kept]
    if not names:
        raise UserError(f"{what} holds no demonstrations data/demo_<number>; fetch it again")
    return sorted(names, key=lambda name: int(name.removeprefix("demo_")))


def _masks(file: h5py.File) -> h5py.Group | dict:
    masks = file.get("mask")
    return masks if isinstance(masks, h5py.Group) else {}


def _mask(what: str, file: h5py.File, key: str) -> set[str]:
    """Names of the demonstrations that a mask lists."""
    masks = _masks(file)
    if not isinstance(masks.get(key), h5py.Dataset):
        raise UserError(
            f"{what} has no mask {key!r}; choose one of {', '.join(masks) or 'none, it has none'}"
        )
    hdf5.check_stored(what, f"mask/{key}", masks[key])
    hdf5.check_size(f"{what}: mask/{key}", file.id, hdf5.size(masks[key]))
    entries = np.ravel(masks[key][()])
    return {e.decode(errors="replace") if isinstance(e, bytes) else str(e) for e in entries}


def _split(what: str, file: h5py.File, names: list[str]) -> np.ndarray | None:
    """The split that the file brings, [episodes] bool, True = for training; None without one."""
    train, valid = (
        _mask(what, file, key) if key in _masks(file) else None for key in ("train", "valid")
    )
    if train is None and valid is None:
        return None
    both = (train or set()) & (valid or set())
    if both:
        raise UserError(f"{what}: {min(both)} is in mask/train and in mask/valid; correct them")
    split = np.array([name not in valid if train is None else name in train for name in names])
    return split if split.any() and not split.all() else None


def _read_demos(what: str, file: h5py.File, names: list[str]) -> list[dict[str, np.ndarray]]:
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
    _check_rows(what, stored, demo.attrs.get("num_samples"))
    return stored


def _read_demo(what: str, stored: dict[str, h5py.Dataset]) -> dict[str, np.ndarray]:
    following = [f"next_obs/{key}" for key in _OBSERVED]
    last = [hdf5.load(stored[key], -1) for key in following if key in stored]
    arrays = {key: hdf5.load(stored[key]) for key in stored if key not in following}
    observations = np.concatenate([arrays[f"obs/{key}"] for key in _OBSERVED], axis=1)
    dones = episodes.flags(what, "dones", arrays["dones"])
    rewards = _success(arrays.get("rewards", dones))
    unknown = np.full(observations.shape[1], np.nan, np.float32)
    return {
        "observations": observations,
        "actions": arrays["actions"],
        "rewards": rewards,
        "terminals": (np.arange(len(dones)) == len(dones) - 1) & dones & (rewards == 1),
        "final_observations": np.concatenate(last) if last else unknown,
    }


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
        rank = 1 if key in ("rewards", "dones") else 2
        if array.ndim != rank or array.shape[:1] != rows or rows == (0,):
            raise UserError(
                f"{what}: {key} has shape {list(array.shape)} and dones has shape {list(rows)}, "
                f"expected {rank} dimension(s) and one row per step; fetch the file again"
            )
    if steps is not None and not np.array_equal(np.ravel(steps), rows):
        raise UserError(
            f"{what}: num_samples is {steps} but there are {rows[0]} rows; fetch the file again"
        )


def _join(
    what: str, demos: list[dict[str, np.ndarray]], about: DataInfo, train: np.ndarray | None
) -> Trajectories:
    for key in ("observations", "actions"):
        sizes = sorted({demo[key].shape[1] for demo in demos})
        if len(sizes) > 1:
            raise UserError(f"{what}: {key} of its demonstrations have {sizes} dimensions")
    final = np.stack([demo.pop("final_observations") for demo in demos])
    lengths = np.array([len(demo["actions"]) for demo in demos])
    joined = {key: np.concatenate([demo[key] for demo in demos]) for key in demos[0]}
    return Trajectories(
        **joined, lengths=lengths, final_observations=final, info=about, train=train
    )
