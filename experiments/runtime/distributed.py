"""Joins the processes of one training on several hosts; the first of them writes its files."""

from __future__ import annotations

import os
from collections.abc import Sequence

import jax

from mtm_jax.errors import UserError

VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
PATIENCE = 86_400  # seconds that processes wait at the end, while the first one evaluates
ASKED = tuple(f"--config.distributed{yes}" for yes in ("", "=true", "=t", "=1"))


def start(argv: Sequence[str]) -> None:
    """Wait for the other processes that the environment speaks of, before jax finds its devices.

    Either all three of `VARIABLES` are set, or --config.distributed=True lets jax ask the scheduler
    (Slurm, Open MPI and others).

    Raises:
        UserError: some variables are missing or wrong, or there is no scheduler, or no answer.
    """
    found = {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}
    asked = any(arg.lower() in ASKED for arg in argv)
    if not found and not asked:
        return
    patience = {"shutdown_timeout_seconds": PATIENCE}
    try:
        if found:
            address, count, place = (found[name] for name in VARIABLES)
            jax.distributed.initialize(address, int(count), int(place), **patience)
        else:
            jax.distributed.initialize(**patience)
    except (KeyError, ValueError, RuntimeError) as error:
        raise UserError(
            f"this process cannot join the others ({error}); set {', '.join(VARIABLES)}, or start "
            "it under Slurm with --config.distributed=True"
        ) from error
