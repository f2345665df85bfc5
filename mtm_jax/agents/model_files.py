"""A model alone on disk: its configuration as `model.json`, its parameters as `params.npz`."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
import tempfile
import typing
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from mtm_jax.config import ModelConfig
from mtm_jax.data import archives
from mtm_jax.errors import UserError
from mtm_jax.models.trajectory_model import make_model
from mtm_jax.types import Head, ModalitySpec

CONFIG_FILE = "model.json"
PARAMS_FILE = "params.npz"


def save_model(folder: str | pathlib.Path, config: ModelConfig, params: dict) -> None:
    """Write a new folder; it appears under its name only when it is complete.

    Raises:
        UserError: the folder exists already.
    """
    folder = pathlib.Path(folder).absolute()
    if folder.exists():
        raise UserError(f"{folder} exists already; remove it or give another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        temporary.chmod(0o755)  # mkdtemp makes it private
        (temporary / CONFIG_FILE).write_text(json.dumps(config_to_dict(config), indent=2) + "\n")
        flat = flax.traverse_util.flatten_dict(params, sep="/")
        np.savez(temporary / PARAMS_FILE, **{k: np.asarray(v) for k, v in flat.items()})
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_model(folder: str | pathlib.Path) -> tuple[ModelConfig, dict]:
    """Read what `save_model` wrote.

    Raises:
        UserError: the folder does not hold a model, or its two files do not fit each other.
    """
    folder = pathlib.Path(folder)
    config = _read_config(folder)
    flat = _read_arrays(folder)
    wanted = _describe(_expected(folder, config, len(flat)))
    found = _describe(flat)
    wrong = sorted(k for k in found.keys() | wanted.keys() if found.get(k) != wanted.get(k))
    if wrong:
        first = wrong[0]
        raise _no_model(
            folder,
            f"{len(wrong)} arrays differ from {CONFIG_FILE}, the first is {first}: "
            f"{found.get(first, 'missing')} in {PARAMS_FILE}, "
            f"{wanted.get(first, 'none')} by {CONFIG_FILE}",
        )
    return config, flax.traverse_util.unflatten_dict(flat, sep="/")


def _read_config(folder: pathlib.Path) -> ModelConfig:
    try:
        config = config_from_dict(json.loads((folder / CONFIG_FILE).read_text()))
        return _typed(config)
    except OSError as error:
        raise _no_model(folder, str(error)) from error
    except KeyError as error:
        raise _no_model(folder, f"{CONFIG_FILE} lacks {error}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise _no_model(folder, f"{CONFIG_FILE} is wrong: {error}") from error


def _typed(config: ModelConfig) -> ModelConfig:
    """Refuse numbers and texts of another type than their default's: JSON has no types."""
    for part in (config, *config.modalities):
        for field in dataclasses.fields(part):
            value, default = getattr(part, field.name), field.default
            kinds = (int, float) if isinstance(default, float) else (type(default),)
            if default is not dataclasses.MISSING and type(value) not in kinds:
                raise TypeError(f"{field.name} is {value!r}, not like {default!r}")
    heads = typing.get_args(Head)
    if wrong := [m.head for m in config.modalities if m.head not in heads]:
        raise ValueError(f"head is {wrong[0]!r}; it must be one of {', '.join(heads)}")
    return config


def _read_arrays(folder: pathlib.Path) -> dict[str, jax.Array]:
    try:
        with archives.open_file(folder / PARAMS_FILE) as file:
            arrays, _ = archives.load_npz("its content", file, None)
    except UserError as error:
        raise _no_model(folder, f"{PARAMS_FILE} is damaged: {error}") from error
    return {name: jnp.asarray(array) for name, array in arrays.items()}


def _expected(folder: pathlib.Path, config: ModelConfig, arrays: int) -> dict[str, Any]:
    """Shapes of the parameters that a configuration means."""
    layers = config.encoder_layers + config.decoder_layers
    if layers > arrays:  # before a model of a billion layers is built
        raise _no_model(
            folder, f"{CONFIG_FILE} has {layers} layers, {PARAMS_FILE} only {arrays} arrays"
        )
    try:
        shapes = jax.eval_shape(make_model(config).init, jax.random.key(0))
    except (TypeError, ValueError, OverflowError, MemoryError) as error:
        raise _no_model(folder, f"{CONFIG_FILE} describes none that can be built") from error
    return flax.traverse_util.flatten_dict(shapes, sep="/")


def _describe(arrays: dict[str, Any]) -> dict[str, str]:
    return {name: f"{array.dtype} {array.shape}" for name, array in arrays.items()}


def _no_model(folder: pathlib.Path, reason: str) -> UserError:
    return UserError(
        f"{folder} holds no model ({reason}); "
        "give a folder that experiments.import_checkpoint wrote"
    )


def config_to_dict(config: ModelConfig) -> dict[str, Any]:
    """Turn a configuration into JSON values."""
    return dataclasses.asdict(config)


def config_from_dict(values: dict[str, Any]) -> ModelConfig:
    """Invert `config_to_dict`."""
    modalities = tuple(ModalitySpec(**m) for m in values["modalities"])
    return ModelConfig(**(values | {"modalities": modalities}))
