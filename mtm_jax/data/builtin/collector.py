"""Samples shards on all cores in worker processes; the result does not depend on their number."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pathlib
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import BinaryIO, NamedTuple

from mtm_jax.data import archives
from mtm_jax.data.builtin import shard
from mtm_jax.errors import UserError
from mtm_jax.io import progress as progress_bar

_LOG = logging.getLogger("mtm_jax")
_PACKAGE_ROOT = pathlib.Path(__file__).resolve().parents[3]
_THREAD_LIMITS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


class _Worker(NamedTuple):
    process: subprocess.Popen
    words: BinaryIO  # what it said on stderr


class WorkerError(RuntimeError):
    """A worker process ended early; the message holds its last words."""


def cores() -> int:
    """Count the processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def collect(
    tasks: Sequence[shard.Task],
    workers: int | None,
    title: str,
    progress: bool,
    kept: pathlib.Path | None = None,
) -> list[shard.Episodes]:
    """Sample every task.

    Workers are plain `python -m` processes rather than multiprocessing's: a user's script needs
    no `__main__` guard, nothing of the parent is imported again, and nothing is pickled.

    Args:
        tasks: the shards.
        workers: number of processes; by default one per core.
        title: what the progress bar says.
        progress: whether to draw one.
        kept: a folder in which finished shards wait until all are done; those that an earlier
            call for the same tasks left there are not sampled again.

    Returns:
        Their episodes, in the order of `tasks`.

    Raises:
        WorkerError: a worker failed.
        UserError: a worker was ended from outside.
    """
    results = [_read_kept(kept, index) for index in range(len(tasks))]
    pending: queue.SimpleQueue = queue.SimpleQueue()
    for index, task in enumerate(tasks):
        if results[index] is None:
            pending.put((index, task))
    done = sum(t.steps for t, result in zip(tasks, results, strict=True) if result is not None)
    if done:
        _LOG.info("%s: %d steps were kept from before", title, done)
    count = min(workers or cores(), max(pending.qsize(), 1))
    with (
        _progress_bar(title, sum(task.steps for task in tasks), done, progress) as advance,
        _workers(count) as pool,
        futures.ThreadPoolExecutor(count) as threads,
    ):
        jobs = [threads.submit(_drive, w, pending, results, advance, kept) for w in pool]
        try:
            for job in futures.as_completed(jobs):
                job.result()
        except BaseException:
            _kill(pool)  # ends the other threads too: their pipes close
            raise
    return results


def _keep(kept: pathlib.Path | None, index: int, data: bytes) -> None:
    """Store a finished shard, whole or not at all."""
    if kept is None:
        return
    try:
        kept.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=kept, prefix=".", delete=False) as file:
            file.write(data)
        os.replace(file.name, _kept_file(kept, index))
    except FileNotFoundError:  # another process was faster and has removed the folder
        _LOG.debug("shard %d is not kept: %s is gone", index, kept)
    except OSError as error:
        raise UserError(
            f"cannot keep collected steps in {kept} ({error.strerror}); make space, or set "
            "MTM_JAX_DATA to another folder; what was kept before is continued"
        ) from error


def _read_kept(kept: pathlib.Path | None, index: int) -> shard.Episodes | None:
    if kept is None or not _kept_file(kept, index).is_file():
        return None
    try:
        return shard.unpack(_kept_file(kept, index).read_bytes())
    except archives.DAMAGE as error:
        _LOG.warning("sampling shard %d again: what was kept is damaged (%s)", index, error)
        return None


def _kept_file(kept: pathlib.Path, index: int) -> pathlib.Path:
    return kept / f"shard_{index:05d}.npz"


@contextlib.contextmanager
def _workers(count: int) -> Iterator[list[_Worker]]:
    """Start workers in a scratch folder, into which MuJoCo may write its log."""
    env = os.environ | dict.fromkeys(_THREAD_LIMITS, "1") | {"MUJOCO_GL": "disable"}
    paths = [str(_PACKAGE_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    env["PYTHONPATH"] = os.pathsep.join(paths)
    with tempfile.TemporaryDirectory(prefix="mtm_jax-") as folder, contextlib.ExitStack() as stack:
        workers: list[_Worker] = []
        stack.callback(_close, workers)
        for k in range(count):
            words = stack.enter_context(open(pathlib.Path(folder) / f"worker_{k}", "w+b"))
            process = subprocess.Popen(
                [sys.executable, "-m", shard.__name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=words,
                cwd=folder,
                env=env,
            )
            workers.append(_Worker(process, words))
        yield workers


def _kill(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.process.kill()
    for worker in workers:
        worker.process.wait()


def _close(workers: list[_Worker]) -> None:
    _kill(workers)
    for worker in workers:
        worker.process.stdout.close()
        with contextlib.suppress(BrokenPipeError):  # of a task that it never read
            worker.process.stdin.close()


def _drive(
    worker: _Worker,
    pending: queue.SimpleQueue,
    results: list,
    advance: Callable[[int], None],
    kept: pathlib.Path | None,
) -> None:
    """Feed one worker until no task is left."""
    with contextlib.suppress(queue.Empty):
        while True:
            index, task = pending.get_nowait()
            try:
                worker.process.stdin.write(json.dumps(task._asdict()).encode() + b"\n")
                worker.process.stdin.flush()
                data = _receive(worker.process.stdout, task.steps, advance)
            except (BrokenPipeError, EOFError) as error:
                raise _failure(worker) from error
            _keep(kept, index, data)
            results[index] = shard.unpack(data)


def _receive(answers: BinaryIO, steps: int, advance: Callable[[int], None]) -> bytes:
    reported = 0
    while True:
        line = answers.readline()
        if not line:
            raise EOFError
        message = json.loads(line)
        if "bytes" in message:
            advance(steps - reported)
            data = answers.read(message["bytes"])
            if len(data) < message["bytes"]:
                raise EOFError
            return data
        advance(message["steps"] - reported)
        reported = message["steps"]


def _failure(worker: _Worker) -> Exception:
    """Say why a worker ended; what kills one from outside is no mistake of this code."""
    code = worker.process.wait()
    if code < 0:
        return UserError(
            f"a collecting process was ended by signal {-code} ({signal.strsignal(-code)}), as a "
            "machine does that runs out of memory; the same command continues"
        )
    worker.words.seek(0)
    tail = worker.words.read().decode(errors="replace").strip()[-2000:]
    return WorkerError(
        f"a collecting process ended with exit code {code}: {tail or 'it said nothing'}"
    )


@contextlib.contextmanager
def _progress_bar(
    title: str, total: int, start: int, shown: bool
) -> Iterator[Callable[[int], None]]:
    """Yield a function that adds steps to the bar, from any thread."""
    if not shown:
        yield lambda steps: None
        return
    done, lock = start, threading.Lock()
    with progress_bar.progress(total, title, start) as bar:

        def advance(steps: int) -> None:
            nonlocal done
            if steps == 0:
                return
            with lock:
                done += steps
                bar.update(done)

        yield advance
