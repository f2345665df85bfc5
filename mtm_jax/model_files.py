"""A model alone on disk: its configuration as `model.json`, its parameters as `params.npz`."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
import tempfile
from typing import Any

import flax.traverse_util
import jax.numpy as jnp
import numpy as np

from mtm_jax.config import ModelConfig
from mtm_jax.errors import UserError
from mtm_jax.types import ModalitySpec

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
        UserError: the folder does not hold a model.
    """
    folder = pathlib.Path(folder)
    try:
        config = config_from_dict(json.loads((folder / CONFIG_FILE).read_text()))
        with np.load(folder / PARAMS_FILE) as arrays:
            flat = {k: jnp.asarray(arrays[k]) for k in arrays.files}
    except OSError as error:
        raise UserError(
            f"{folder} holds no model ({error}); "
            "give a folder that experiments.import_checkpoint wrote"
        ) from None
    return config, flax.traverse_util.unflatten_dict(flat, sep="/")


def config_to_dict(config: ModelConfig) -> dict[str, Any]:
    """Turn a configuration into JSON values."""
    return dataclasses.asdict(config)


def config_from_dict(values: dict[str, Any]) -> ModelConfig:
    """Invert `config_to_dict`."""
    modalities = tuple(ModalitySpec(**m) for m in values["modalities"])
    return ModelConfig(**(values | {"modalities": modalities}))
