"""The folders of a run's checkpoints: their names, their removal, and the run that they are of."""

from __future__ import annotations

import errno
import os
import pathlib
import re
import shutil
import time
import uuid

RUN_ID_FILE = "run_id"  # of a run folder; every checkpoint repeats what it holds
_STEP = re.compile("0|[1-9][0-9]*")  # "0200", "+200" and "1_000" are no steps
# What a save, or a removal, is called while it is not complete.
_UNFINISHED = re.compile(r"[0-9]+\.orbax-checkpoint-tmp.*|\.removed-[0-9]+")


def steps(folder: pathlib.Path) -> list[int]:
    """List the steps that `folder` holds checkpoints of, ascending."""
    if not folder.is_dir():
        return []
    found = [p.name for p in folder.iterdir() if _STEP.fullmatch(p.name) and p.is_dir()]
    return sorted(map(int, found))


def set_aside(path: pathlib.Path, aside: pathlib.Path) -> None:
    """Move a checkpoint into the folder `aside`, under its own name or one that follows."""
    aside.mkdir(exist_ok=True)
    names = (path.name, *(f"{path.name}-{n}" for n in range(2, 100)))
    os.replace(path, next(aside / name for name in names if not (aside / name).exists()))


def remove(path: pathlib.Path) -> None:
    """Remove a checkpoint: a folder that is being deleted must not look like one."""
    removed = path.with_name(f".removed-{path.name}")
    os.replace(path, removed)
    shutil.rmtree(removed)


def remove_unfinished(folder: pathlib.Path) -> None:
    """Remove what a killed save or removal has left; no other folder."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir() and _UNFINISHED.fullmatch(path.name):
            _remove_busy(path)


def _remove_busy(path: pathlib.Path) -> None:
    """Remove a folder; a save of this process that failed may still be writing into it."""
    for wait in (0.1, 0.3, 1.0, 3.0, None):
        try:
            return shutil.rmtree(path)
        except OSError as error:
            if wait is None or error.errno not in (errno.ENOTEMPTY, errno.ENOENT):
                raise
            time.sleep(wait)


def read_run_id(run_dir: pathlib.Path) -> str | None:
    """Read what a run is called in its checkpoints; None where it has not saved any."""
    path = run_dir / RUN_ID_FILE
    return path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else None


def make_run_id(run_dir: pathlib.Path) -> str:
    """Read what a run is called in its checkpoints, or draw it with the first of them."""
    found = read_run_id(run_dir)
    if found is None:
        found = uuid.uuid4().hex
        temporary = run_dir / f".{RUN_ID_FILE}.{os.getpid()}"
        temporary.write_text(f"{found}\n", encoding="utf-8")
        temporary.replace(run_dir / RUN_ID_FILE)
    return found
