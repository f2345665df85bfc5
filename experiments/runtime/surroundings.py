"""What the machine or its settings are to blame for, and what to do about it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

_MEMORY = "choose a smaller model, batch, number of candidates or data set"
# What an error says -> the settings under which jax raises it.
_DEBUGGING = (
    (r"invalid value \((nan|inf)\) encountered", ("JAX_DEBUG_NANS", "JAX_DEBUG_INFS")),
    (r"[Ll]eaked (trace|level)|leaked an abstract|has leaked", ("JAX_CHECK_TRACER_LEAKS",)),
    (r"[Dd]isallowed .*transfer", ("JAX_TRANSFER_GUARD",)),
    (r"KeyReuseError|key reuse|previously-consumed key", ("JAX_DEBUG_KEY_REUSE",)),
)


def blame(error: Exception) -> str | None:
    """Say in a sentence what is wrong with the machine or its settings; None: neither is to blame.

    Only the text of an error tells: libraries raise RuntimeError for anything.
    """
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError):
        return f"this machine has not enough memory ({text}); {_MEMORY}"
    if "RESOURCE_EXHAUSTED" in text:  # what XLA says of its device
        return f"the device has not enough memory ({text}); {_MEMORY}"
    if re.search("[Uu]nable to initialize backend|Unknown backend|No visible \\w+ devices", text):
        return _no_device(text)
    if "Could not determine home directory" in text:
        return "this user has no home folder; set HOME, or MTM_JAX_DATA=FOLDER and full paths"
    if "can't start new thread" in text:
        return "this machine allows no further thread; end other programs, or raise ulimit -u"
    if isinstance(error, ModuleNotFoundError) and error.name and not _ours(error.name):
        return f"{error.name} is not installed ({error}); run make setup, or pip install -e ."
    settings = " and ".join(f"{name}={os.environ[name]}" for name in _settings(text))
    if settings:
        return f"this program does not work with {settings} ({text}); unset it"
    return None


def _no_device(text: str) -> str:
    chosen = os.environ.get("JAX_PLATFORMS")
    if chosen is None:
        return f"jax finds no device ({text}); set JAX_PLATFORMS=cpu to compute on the CPU"
    return (
        f"this machine has no device of JAX_PLATFORMS={chosen}, or jax lacks what drives it "
        f"({text}); unset it, or set JAX_PLATFORMS=cpu"
    )


def _ours(module: str) -> bool:
    return module.split(".")[0] in ("mtm_jax", "experiments", "configs")


def _settings(text: str) -> Iterator[str]:
    """Name the settings of the environment that an error of jax is about."""
    named = {name.upper() for name in re.findall(r"\b(?:jax|JAX|XLA|xla)_\w+", text)}
    for pattern, names in _DEBUGGING:
        named |= set(names) if re.search(pattern, text) else set()
    yield from sorted(named & os.environ.keys())
