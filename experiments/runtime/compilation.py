"""Compiled programs are kept on disk, so that the second start of a program is a fast one."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import pathlib
import platform
import stat
import time
from collections.abc import Iterator

import jax
import jaxlib

from mtm_jax.errors import UserError
from mtm_jax.io import cache

_CHOSEN_BY_USER = "JAX_COMPILATION_CACHE_DIR"
_RANDOM_CHOSEN_BY_USER = "JAX_THREEFRY_GPU_KERNEL_LOWERING"
_KEPT_DAYS = 30.0  # of what is compiled again where it is still needed
_COMPILING = "/jax/core/compile/backend_compile_duration"  # reading from disk included


def keep() -> pathlib.Path | None:
    """Let jax read compiled programs from `<cache folder>/compiled` and write new ones there.

    Returns:
        The folder; None where the user has chosen another, or none, and where it cannot be written
        or others can write: what is in it is run.
    """
    if _CHOSEN_BY_USER in os.environ or jax.config.jax_compilation_cache_dir is not None:
        return None
    try:
        folder = cache.folder() / "compiled" / machine_digest()
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        if not _ours_alone(folder):
            return None
        _sweep(folder)
    except (OSError, UserError):
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # Jax's default of one second leaves out the many small programs, which add up.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    return folder


def draw_by_kernel() -> None:
    """Let GPUs draw random numbers by a kernel of jax, unless the user has chosen.

    The numbers are the same. Otherwise every draw is a hundred instructions of the program, which
    XLA copies into each place that uses it: with dropout that is half of a training step.
    """
    if _RANDOM_CHOSEN_BY_USER not in os.environ:
        jax.config.update("jax_threefry_gpu_kernel_lowering", True)


def machine_digest() -> str:
    """Name what compiled code depends on, and the user: others who share a folder have theirs."""
    parts = (str(os.getuid()), platform.machine(), jaxlib.__version__, *processor())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


@functools.cache
def processor() -> tuple[str, ...]:
    """Describe the first processor's model and features, where Linux tells them."""
    wanted = ("vendor_id", "cpu family", "model", "model name", "flags")
    wanted += ("CPU implementer", "CPU part", "Features")
    try:
        first = pathlib.Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return (platform.processor(),)
    pairs = (line.partition(":") for line in first.splitlines())
    return tuple(f"{k.strip()}={v.strip()}" for k, _, v in pairs if k.strip() in wanted)


class Stopwatch:
    """Seconds that compiling has taken; see `stopwatch`."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self, event: str, duration: float, **_: object) -> None:
        if event == _COMPILING:
            self.seconds += duration


@contextlib.contextmanager
def stopwatch() -> Iterator[Stopwatch]:
    """Add up what compiling takes, on all threads."""
    watch = Stopwatch()
    jax.monitoring.register_event_duration_secs_listener(watch)
    try:
        yield watch
    finally:
        jax.monitoring.unregister_event_duration_listener(watch)


def _ours_alone(folder: pathlib.Path) -> bool:
    status = folder.stat()
    others_write = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return status.st_uid == os.getuid() and not others_write and os.access(folder, os.W_OK)


def _sweep(folder: pathlib.Path) -> None:
    for file in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if time.time() - file.stat().st_mtime > 86_400 * _KEPT_DAYS:
                file.unlink()
