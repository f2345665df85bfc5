"""What is stored beside the arrays of a Minari data set, and which environment it means.

Metadata can name any code to build an environment with. Here they are only ever text: an id that
is looked up in our own list, and spaces whose shapes are compared.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
from collections.abc import Mapping

import numpy as np

from mtm_jax.data import custom, paths
from mtm_jax.data import info as data_info
from mtm_jax.data.recorded import actions, environment, settings
from mtm_jax.envs import registry
from mtm_jax.errors import UserError
from mtm_jax.types import DataInfo

FILE = "main_data.hdf5"
METADATA = "metadata.json"
_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*")


def check_id(dataset_id: str) -> None:
    """Refuse what is no id, and so could lead out of the folder that ids are looked up in.

    Raises:
        UserError: it is not names joined by slashes.
    """
    if not _ID.fullmatch(dataset_id):
        raise UserError(
            f"{dataset_id!r} is not the id of a Minari data set, which is made of names joined by "
            "'/', like mujoco/hopper/medium-v0; give a folder by its path alone"
        )


def data_folder(folder: pathlib.Path) -> pathlib.Path:
    """Return the folder that has the files: Minari's `data`, or `folder` itself."""
    return folder if (folder / METADATA).is_file() else folder / "data"


def is_data_set(folder: pathlib.Path) -> bool:
    """Whether there is a data set in `folder`, complete or not."""
    return (data_folder(folder) / METADATA).is_file()


def read(folder: str | os.PathLike) -> dict:
    """Read the metadata of the data set in `folder`.

    Raises:
        UserError: they are missing or not JSON.
    """
    path = data_folder(pathlib.Path(folder)) / METADATA
    try:
        paths.require_file(path)
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = f"the metadata of a Minari data set cannot be read from {path} ({error})"
        raise UserError(f"{reason}; download it again") from error
    if not isinstance(metadata, dict):
        raise UserError(f"{path} does not describe a Minari data set; download it again")
    return metadata


def check_format(what: str, metadata: Mapping) -> None:
    """Refuse what is stored otherwise than as flat arrays in HDF5, as far as metadata tell.

    Raises:
        UserError: they tell of another format, or of a space that is not flat.
    """
    stored = metadata.get("data_format", "hdf5")
    if stored != "hdf5":
        raise UserError(f"{what} is stored as {stored!r}, but only 'hdf5' is read; choose another")
    for key in ("observation_space", "action_space"):
        space = _parsed(metadata, key)
        kind, shape = space.get("type", "Box"), space.get("shape", [0])
        if kind != "Box" or not isinstance(shape, list) or len(shape) != 1:
            raise UserError(
                f"{what}: its {key} is a {kind}{_detail(space)}, but only flat ones are read "
                "(a Box of one dimension); choose another data set"
            )


def describe(
    what: str,
    metadata: Mapping,
    about: DataInfo | str | None,
    name: str,
    source: str,
    notes: list[str],
) -> DataInfo | None:
    """Find the environment among ours, from what the user called the data and the stored id.

    Args:
        what: the data set, for messages.
        metadata: what is stored with it.
        about: a DataInfo, which is taken as it is, or a name that starts with the environment.
        name: the id or path of the data, which may tell the environment where nothing else does.
        source: what `info.source` says.
        notes: gets a sentence on everything that is not as recorded.

    Returns:
        None for a name like "custom-robot", of an environment that nobody here knows.

    Raises:
        UserError: the environment is unknown, or not the one that `about` names; or the recorded
            one had other settings.
    """
    if isinstance(about, DataInfo):
        return about
    if about is not None and custom.is_one(about):
        return None
    stored = env_spec(what, metadata)
    if isinstance(stored.get("id"), str):
        spec, env_id = environment.choose_env(what, stored["id"], about, _builtin_id, notes)
    else:
        texts = [about or name, *(about or name).split("/"), *_id_parts(metadata)]
        spec = data_info.env_of(what, *dict.fromkeys(texts))
        env_id = data_info.asked_id(about or "") or spec.builtin_id
        notes.append(
            f"nothing says how its environment was made; it is taken for {env_id or spec.name} as "
            "it is, without wrappers and with default arguments"
        )
    name = pathlib.PurePath(name).name if about is None else about
    info = data_info.of_env(spec, env_id, data_info.name_in(spec, name), source)
    return settings.agree(what, stored, info, notes) if env_id else info


def _builtin_id(spec: registry.EnvSpec) -> str:
    return spec.builtin_id


def env_spec(what: str, metadata: Mapping) -> dict:
    """Read the description of the recorded environment; empty where there is none.

    Raises:
        UserError: what is there describes nothing.
    """
    found = _parsed(metadata, "env_spec")
    if not found and metadata.get("env_spec") is not None:
        raise UserError(
            f"{what}: its env_spec is {str(metadata['env_spec'])[:60]!r}, which describes no "
            "environment; leave it out, or write gymnasium's EnvSpec.to_json()"
        )
    return found


def action_bounds(metadata: Mapping) -> actions.Bounds | None:
    """Return the least and the greatest action, [A] each; None where they are unknown."""
    space = _parsed(metadata, "action_space")
    try:
        bounds = np.array([space["low"], space["high"]], np.float64)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    known = bounds.ndim == 2 and np.isfinite(bounds).all()
    return tuple(bounds) if known else None


def rescaled_from(
    what: str, metadata: Mapping, info: DataInfo, notes: list[str]
) -> actions.Bounds | None:
    """Find the bounds that actions are to be mapped from; see `actions.rescaled_from`.

    Raises:
        UserError: they are not those of the environment in `info`, and nothing explains it.
    """
    stored = env_spec(what, metadata)
    return actions.rescaled_from(what, stored, action_bounds(metadata), info, notes)


def _id_parts(metadata: Mapping) -> list[str]:
    return str(metadata.get("dataset_id", "")).split("/")


def _parsed(metadata: Mapping, key: str) -> dict:
    """A part of the metadata that is JSON in JSON; empty where it cannot be read."""
    try:
        value = json.loads(metadata.get(key) or "null")
    except (TypeError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _detail(space: Mapping) -> str:
    if isinstance(space.get("subspaces"), dict):
        return f" of {', '.join(space['subspaces'])}"
    return f" of shape {space['shape']}" if "shape" in space else ""
