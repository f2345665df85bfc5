"""Reads robomimic's low-dimensional HDF5 files (v1.4.1): one group per demonstration.

A demonstration goes on for some steps after its success, with `dones` set at each of them; all its
steps are kept, and only the last one can be terminal.
"""

from __future__ import annotations

import logging
import os
import pathlib
import re

import h5py
import numpy as np

from mtm_jax.data import hdf5, validation
from mtm_jax.data.robomimic import demonstrations, environment
from mtm_jax.errors import UserError
from mtm_jax.types import DataInfo, Trajectories

_LOG = logging.getLogger("mtm_jax")


def read(
    path: str | os.PathLike,
    about: DataInfo | str | None = None,
    source: str | None = None,
    filter_key: str | None = None,
    clip_actions: bool = False,
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
        clip_actions: whether any number of actions may be clipped, absolute ones too.

    Returns:
        Checked trajectories in the order of the demonstrations' numbers; `train` is what
        `mask/train` lists, or what `mask/valid` does not; None where that splits nothing.

    Raises:
        UserError: the file is missing, damaged or not in this layout, it is not of lift, can or
            square, or not of the environment that `about` names, or its actions are absolute.
    """
    path = pathlib.Path(path).expanduser()
    what = f"file {path}"
    with hdf5.opened(path) as file:
        if not isinstance(file.get("data"), h5py.Group):
            raise UserError(
                f"{what} lacks the group data (it has {', '.join(file) or 'nothing'}); "
                "robomimic's layout is data/demo_0, data/demo_1 and so on"
            )
        arguments = environment.read_arguments(what, file)
        environment.check_actions(what, arguments, clip_actions)
        if not isinstance(about, DataInfo):
            name, source = about or path.stem, str(path) if source is None else source
            about = environment.describe(what, arguments, name, about is not None, source)
        names = _demos(what, file, filter_key)
        demos = demonstrations.read(what, file, names)
        train = _split(what, file, names)
    cut = sum(not demo["terminals"][-1] for demo in demos)
    if cut:
        _LOG.info(
            "%s: %d of %d demonstrations are cut without success; they are kept as non-terminal "
            "ones",
            *(what, cut, len(demos)),
        )
    return validation.check(_join(what, demos, about, train), clip_actions)


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


def _join(
    what: str, demos: list[dict[str, np.ndarray]], about: DataInfo, train: np.ndarray | None
) -> Trajectories:
    for key in ("observations", "actions"):
        sizes = sorted({demo[key].shape[1] for demo in demos})
        if len(sizes) > 1:
            raise UserError(f"{what}: {key} of its demonstrations have {sizes} dimensions")
    if train is not None:
        train = np.repeat(train, [len(demo["lengths"]) for demo in demos])
    joined = {key: np.concatenate([demo[key] for demo in demos]) for key in demos[0]}
    return Trajectories(**joined, info=about, train=train)
