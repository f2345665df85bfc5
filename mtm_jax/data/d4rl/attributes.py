"""What the attributes of a file in D4RL's layout say of the environment it was recorded in."""

from __future__ import annotations

import json
from typing import Any

import h5py
import numpy as np

from mtm_jax.data import info as data_info
from mtm_jax.data.recorded import actions, environment
from mtm_jax.errors import UserError

_IDS = ("env_id", "env_name", "env")  # attributes that may name the environment


def read(what: str, file: h5py.File) -> dict[str, Any]:
    """Collect what a file says of its environment in the way that gymnasium's EnvSpec does.

    Raises:
        UserError: what should be JSON is none.
    """
    found = {key: _text(value) for key, value in file.attrs.items()}
    stored = _json(what, "env_spec", found.get("env_spec", "{}"))
    named = [str(found[key]) for key in _IDS if key in found]
    ids = [text for text in named if environment.is_id(text) or not data_info.find_env(text)]
    if ids:  # and not the name of data, like hopper-medium-v2
        stored.setdefault("id", ids[0])
    if "env_kwargs" in found:
        stored["kwargs"] = _json(what, "env_kwargs", found["env_kwargs"])
    if "frame_skip" in found:
        stored["kwargs"] = dict(stored.get("kwargs") or {}) | {"frame_skip": found["frame_skip"]}
    if "max_episode_steps" in found:
        stored["max_episode_steps"] = found["max_episode_steps"]
    return stored


def _text(value: object) -> object:
    """Turn bytes into text, and a number of numpy into one of Python."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value.item() if isinstance(value, np.generic) else value


def _json(what: str, key: str, value: object) -> dict[str, Any]:
    try:
        parsed = json.loads(value)
    except (TypeError, ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise UserError(
            f"{what}: its attribute {key} is {value!r}, expected JSON of names and values"
        )
    return parsed


def bounds(file: h5py.File) -> actions.Bounds | None:
    """Return the least and the greatest action, [A] each; None where the file does not say."""
    try:
        low, high = (np.ravel(np.float64(file.attrs[f"action_{end}"])) for end in ("low", "high"))
    except (KeyError, TypeError, ValueError):
        return None
    known = low.shape == high.shape and np.isfinite([low, high]).all()
    return (low, high) if known else None
