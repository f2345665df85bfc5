"""The renderer that MUJOCO_GL names: without it everything works but drawing."""

from __future__ import annotations

import importlib
import logging
import os

VARIABLE = "MUJOCO_GL"


def disable_missing() -> None:
    """Import mujoco where a renderer is named, and without it where that one cannot be loaded."""
    if VARIABLE not in os.environ:
        return
    try:
        importlib.import_module("mujoco")
    except (
        Exception
    ) as error:  # bindings of a library that is not installed raise whatever they meet
        chosen, os.environ[VARIABLE] = os.environ[VARIABLE], "disable"
        logging.getLogger(__name__).warning(
            "MUJOCO_GL=%s cannot be used here (%s): nothing is rendered", chosen, error
        )
