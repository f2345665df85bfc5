"""Reads and writes Minari data sets of flat observations and actions (HDF5, Minari >= 0.4).

Files are read with h5py, because the library's reader may build the environment that the metadata
describe, and metadata can name any code. Ours only ever looks at the id, and at our own list.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator, Sequence

import h5py
import numpy as np

from mtm_jax import cache
from mtm_jax.data import info as data_info
from mtm_jax.data import minari_writer, validation
from mtm_jax.envs import registry
from mtm_jax.errors import UserError
from mtm_jax.types import DataInfo, Trajectories

_FILE = minari_writer.FILE
_METADATA = minari_writer.METADATA
_KEYS = ("observations", "actions", "rewards", "terminations")


def user_root() -> pathlib.Path:
    """Return the folder of Minari's own downloads."""
    chosen = os.environ.get("MINARI_DATASETS_PATH")
    return pathlib.Path(chosen) if chosen else pathlib.Path.home() / ".minari" / "datasets"


def read(
    dataset: str | os.PathLike,
    about: DataInfo | str | None = None,
    root: str | os.PathLike | None = None,
    source: str = "minari",
) -> Trajectories:
    """Read one data set; it is evaluated in the environment id that it was recorded in.

    Args:
        dataset: an id like "mujoco/hopper/medium-v0", or the path of its folder.
        about: a DataInfo, or a name like "hopper-medium" that starts with the environment.
        root: the folder that ids are looked up in; by default `user_root()`.
        source: what `info.source` says.

    Returns:
        Checked trajectories.

    Raises:
        UserError: the data set is missing, damaged or of another kind, or its environment is
            unknown or not the one of `about`.
    """
    folder = _find(dataset, pathlib.Path(root) if root else user_root())
    metadata = read_metadata(folder)
    if not isinstance(about, DataInfo):
        about = _describe(folder, metadata, str(dataset) if about is None else about, source)
    with _opened(folder, metadata) as file:
        episodes = [_read_episode(folder, file, k) for k in range(len(file))]
    if not episodes:
        raise UserError(f"Minari data set {folder} holds no episodes; download it again")
    return validation.check(_join(folder, episodes, about))


def read_metadata(folder: str | os.PathLike) -> dict:
    """Read the metadata of the data set in `folder`.

    Raises:
        UserError: they are missing or not JSON.
    """
    path = _data_folder(pathlib.Path(folder)) / _METADATA
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = f"the metadata of a Minari data set cannot be read from {path} ({error})"
        raise UserError(f"{reason}; download it again") from error
    if not isinstance(metadata, dict) or metadata.get("data_format", "hdf5") != "hdf5":
        raise UserError(f"{path} does not describe a Minari data set in HDF5; only those are read")
    return metadata


write = minari_writer.write


def _data_folder(folder: pathlib.Path) -> pathlib.Path:
    return folder if (folder / _METADATA).is_file() else folder / "data"


def _find(dataset: str | os.PathLike, root: pathlib.Path) -> pathlib.Path:
    """Find the folder of an id or a path."""
    candidates = [root / dataset, pathlib.Path(dataset).expanduser()]
    for folder in candidates:
        if (_data_folder(folder) / _METADATA).is_file():
            return folder
    if candidates[-1].is_dir():
        raise UserError(f"folder {dataset} holds no Minari data set: it lacks data/{_METADATA}")
    raise UserError(
        f"there is no Minari data set {str(dataset)!r} in {root}; download it with "
        f"`minari download {dataset}`, or set MINARI_DATASETS_PATH to the folder that has it"
    )


def _describe(folder: pathlib.Path, metadata: dict, name: str, source: str) -> DataInfo:
    dataset_id = str(metadata.get("dataset_id", ""))
    env_id = _stored_env_id(metadata)
    if env_id is None:
        texts = dict.fromkeys([name, *name.split("/"), *dataset_id.split("/")])
        spec = data_info.env_of(f"Minari data set {folder}", *texts)
        return data_info.of_env(spec, spec.builtin_id, name, source)
    specs, named = registry.specs_recorded_in(env_id), data_info.find_env(name)
    if named is not None and named not in specs:
        raise UserError(
            f"Minari data set {folder} was recorded in {env_id}, which is not the {named.name} "
            f"of {name!r}; name {specs[0].name} instead"
        )
    spec = specs[0] if named is None else named
    env_id = env_id if env_id in spec.env_ids else spec.builtin_id
    return data_info.of_env(spec, env_id, name, source)


def _stored_env_id(metadata: dict) -> str | None:
    """The id string in the stored specification, of which nothing else is used."""
    try:
        spec = json.loads(metadata.get("env_spec") or "null")
    except (TypeError, ValueError):
        return None
    env_id = spec.get("id") if isinstance(spec, dict) else None
    return env_id if isinstance(env_id, str) else None


@contextlib.contextmanager
def _opened(folder: pathlib.Path, metadata: dict) -> Iterator[h5py.File]:
    path = _data_folder(folder) / _FILE
    if not path.is_file():
        raise UserError(f"Minari data set {folder} lacks {path.name}; download it again")
    if "sha256" in metadata and metadata["sha256"] != cache.sha256(path):
        raise UserError(f"file {path} is damaged: its checksum differs; remove {folder}")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"Minari data set {folder} cannot be read ({reason}); it is damaged, or its "
            "observations or actions are not flat arrays; download it again or choose another"
        ) from error


def _read_episode(folder: pathlib.Path, file: h5py.File, k: int) -> list[np.ndarray]:
    """Read the arrays of `_KEYS`; h5py's low level takes half the time for many short episodes."""
    group = h5py.h5g.open(file.id, b"episode_%d" % k)
    arrays = []
    for key in _KEYS:
        stored = h5py.h5d.open(group, key.encode())
        array = np.empty(stored.shape, stored.dtype)
        stored.read(h5py.h5s.ALL, h5py.h5s.ALL, array)
        arrays.append(array)
    steps = [len(array) if array.ndim else -1 for array in arrays]
    if steps != [steps[2] + 1, steps[2], steps[2], steps[2]]:
        raise UserError(
            f"Minari data set {folder}: episode {k} has {dict(zip(_KEYS, steps, strict=True))} "
            "rows; it needs one more observation than steps, so remove that episode"
        )
    return arrays


def _join(
    folder: pathlib.Path, episodes: Sequence[list[np.ndarray]], about: DataInfo
) -> Trajectories:
    observations, actions, rewards, terminations = zip(*episodes, strict=True)
    for key, arrays in zip(_KEYS, (observations, actions), strict=False):
        shapes = {array.shape[1:] for array in arrays}
        if len(shapes) > 1:
            raise UserError(f"Minari data set {folder}: {key} have several shapes, {shapes}")
    return Trajectories(
        observations=np.concatenate([array[:-1] for array in observations]),
        actions=np.concatenate(actions),
        rewards=np.concatenate(rewards),
        terminals=np.concatenate(terminations),
        lengths=np.array([len(array) for array in rewards]),
        final_observations=np.stack([array[-1] for array in observations]),
        info=about,
    )
