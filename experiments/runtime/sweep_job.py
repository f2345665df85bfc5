"""A job of a sweep: it runs one command, and lets it save before the job is stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any


class Job:
    """A command to run. submitit stores the job, and calls `checkpoint` before its time is up."""

    def __init__(self, command: Sequence[str]):
        self.command = list(command)
        self._process: subprocess.Popen | None = None

    def __call__(self) -> int:
        """Run the command; return its exit code."""
        print(" ".join(self.command), file=sys.stderr, flush=True)
        # The scheduler may warn every process of a job; only this one acts on the warning.
        self._process = subprocess.Popen(self.command, preexec_fn=_ignore_the_warning)
        try:
            return self._process.wait()
        finally:
            if self._process.poll() is None:
                self._process.terminate()

    def checkpoint(self) -> Any:
        """Let the command save and end; return what to queue: the same command, which continues.

        This runs as a signal handler inside `wait` above, so another `wait` would deadlock.
        """
        from submitit import helpers

        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):  # it has just ended
                os.kill(self._process.pid, signal.SIGTERM)
                os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        return helpers.DelayedSubmission(Job(self.command))


def _ignore_the_warning() -> None:
    name = os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2")
    signal.signal(getattr(signal, f"SIG{name}"), signal.SIG_IGN)
