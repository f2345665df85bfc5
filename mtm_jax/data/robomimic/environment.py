"""What a robomimic file says of the environment that it was recorded in.

There is no simulator of it here: what differs from robomimic's own data is said, and actions that
are no changes of the hand's pose are refused.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import h5py

from mtm_jax.data import doubts
from mtm_jax.data import info as data_info
from mtm_jax.envs import registry
from mtm_jax.errors import UserError
from mtm_jax.types import DataInfo

_LOG = logging.getLogger("mtm_jax")
# What robomimic's own recordings are made with, as env_kwargs of their env_args say it.
_USUAL = {"robots": ("Panda", ["Panda"]), "control_freq": (20,)}
_CONTROLLERS = ("OSC_POSE", "BASIC")


def describe(what: str, arguments: dict[str, Any], name: str, given: bool, source: str) -> DataInfo:
    """Choose the environment by the file's arguments, or by the name where they do not tell.

    Args:
        what: the file, for messages.
        arguments: see `read_arguments`.
        name: what the data are called.
        given: whether the user gave the name.
        source: what `info.source` says.

    Raises:
        UserError: it is none of lift, can and square, or not the one that the user names.
    """
    stored, named = arguments.get("env_name"), data_info.find_env(name)
    specs = [s for s in registry.ENVS.values() if s.suite == "robomimic"]
    spec = next((s for s in specs if stored in s.recorded_ids), None)
    if stored is None and named in specs:
        spec = named
    if spec is None:
        raise UserError(
            f"{what} was recorded in {stored or 'an environment that it does not name'}; only "
            f"{', '.join(i for s in specs for i in s.recorded_ids)} are read"
        )
    if given and named not in (None, spec):
        raise UserError(
            f"{what} was recorded in {stored}, which is not the {named.name} of {name!r}; name "
            f"{spec.name} instead"
        )
    return data_info.of_env(spec, "", data_info.name_in(spec, name), source)


def read_arguments(what: str, file: h5py.File) -> dict[str, Any]:
    """Read the stored arguments of the environment; empty where there are none.

    Raises:
        UserError: what is there names no environment.
    """
    given = file["data"].attrs.get("env_args", "{}")
    try:
        arguments = json.loads(given)
    except (TypeError, ValueError, RecursionError):
        arguments = None
    name = arguments.get("env_name") if isinstance(arguments, dict) else 0
    if name is not None and not isinstance(name, str):
        raise UserError(
            f"{what}: env_args of data is {str(given)[:60]!r}, which names no environment; write "
            'JSON like {"env_name": "Lift", "env_kwargs": {}}, or leave it out'
        )
    return arguments


def check_actions(what: str, arguments: dict[str, Any], allowed: bool) -> None:
    """Refuse absolute actions, unless they are allowed; say what else is unusual.

    Raises:
        UserError: the controller took absolute poses.
    """
    settings = arguments.get("env_kwargs")
    settings = settings if isinstance(settings, dict) else {}
    absolute = [
        f"{key} is {value}"
        for key, value in _nested(settings.get("controller_configs"))
        if (key, value) in (("control_delta", False), ("input_type", "absolute"))
    ]
    if absolute and not allowed:
        raise UserError(
            f"{what}: its actions are absolute poses ({absolute[0]}), not the changes of a pose in "
            "[-1, 1] that are modelled; read the file with changes (low_dim, not low_dim_abs), or "
            f"have the actions clipped: {doubts.ALLOW_CLIPPING}"
        )
    unusual = [
        f"{key} {settings[key]!r} (not {usual[0]!r})"
        for key, usual in _USUAL.items()
        if key in settings and settings[key] not in usual
    ]
    kinds = [value for key, value in _nested(settings.get("controller_configs")) if key == "type"]
    unusual += [f"controller {k!r} (not 'OSC_POSE')" for k in kinds[:1] if k not in _CONTROLLERS]
    if absolute or unusual:
        _LOG.warning(
            "%s: recorded with %s, unlike robomimic's own data", what, ", ".join(absolute + unusual)
        )


def _nested(value: object, depth: int = 6) -> Iterator[tuple[str, Any]]:
    """Yield the names and plain values in a dictionary of dictionaries, the outer ones first."""
    if not isinstance(value, dict) or depth == 0:
        return
    yield from ((k, v) for k, v in value.items() if not isinstance(v, dict | list))
    for inner in value.values():
        yield from _nested(inner, depth - 1)
