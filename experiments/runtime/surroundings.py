"""What the machine or its settings are to blame for, and what to do about it."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Iterator

from mtm_jax.errors import UserError

_MEMORY = "choose a smaller model, batch, number of candidates or data set"
# What an error says -> the settings under which jax raises it.
_DEBUGGING = (
    (r"invalid value \((nan|inf)\) encountered", ("JAX_DEBUG_NANS", "JAX_DEBUG_INFS")),
    (r"[Ll]eaked (trace|level)|leaked an abstract|has leaked", ("JAX_CHECK_TRACER_LEAKS",)),
    (
        r"[Dd]isallowed .*transfer",
        ("JAX_TRANSFER_GUARD_HOST_TO_DEVICE", "JAX_TRANSFER_GUARD_DEVICE_TO_HOST"),
    ),
    (r"KeyReuseError|key reuse|previously-consumed key", ("JAX_DEBUG_KEY_REUSE",)),
)
# Settings of jax that no program here works with.
_UNSUPPORTED = {
    "jax_numpy_dtype_promotion": ("strict",),
    "jax_numpy_rank_promotion": ("raise",),
    "jax_debug_key_reuse": (True,),
    "jax_disable_jit": (True,),  # a step takes minutes
    "jax_transfer_guard": ("disallow", "disallow_explicit"),
}


def check_settings() -> None:
    """Refuse settings of jax that nothing here works with; a program without jax has none.

    Raises:
        UserError: it names one, with its value.
    """
    if "jax" not in sys.modules:
        return
    import jax

    for name, refused in _UNSUPPORTED.items():
        value = getattr(jax.config, name, None)
        if value in refused:
            given = (
                f"{name.upper()}={os.environ[name.upper()]}"
                if name.upper() in os.environ
                else f"{name}={value}"
            )
            raise UserError(f"training and evaluation do not work with {given}; unset it")


def blame(error: Exception) -> str | None:
    """Say in a sentence what is wrong with the machine or its settings; None: neither is to blame.

    Only the text of an error tells: libraries raise RuntimeError for anything.
    """
    text = f"{type(error).__name__}: {error}".removesuffix(": ")
    if isinstance(error, MemoryError):
        return f"this machine has not enough memory ({text}); {_MEMORY}"
    if "RESOURCE_EXHAUSTED" in text:  # what XLA says of its device
        return f"the device has not enough memory ({text}); {_MEMORY}"
    if _is_about_devices(error):
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


def _is_about_devices(error: Exception) -> bool:
    """Whether jax failed while it looked for its devices; it does so in many ways."""
    frames = traceback.extract_tb(error.__traceback__)
    looking = any(frame.filename.endswith("xla_bridge.py") for frame in frames[-1:])
    return looking or bool(re.search("[Uu]nable to initialize backend", str(error)))


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
