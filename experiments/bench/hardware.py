"""The machine that runs `experiments.bench`."""

from __future__ import annotations

import os
import pathlib
import platform
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from experiments.bench import timing
from mtm_jax.io import results


def describe(matmuls: timing.Matmuls, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Describe the machine, with the rates of matmuls by type, measured between the calls."""
    rates = {}
    for dtype, matmul in matmuls.items():
        measured = [r["product_gflops"] for r in rows if r["compute_dtype"] == dtype]
        rates[dtype] = float(np.median(measured)) if measured else matmul.peak
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "product_sizes": {dtype: matmul.size for dtype, matmul in matmuls.items()},
        "product_gflops": rates,
        "versions": results.versions(),
    }


def cpu_name() -> str:
    """Return the model of the processor, from Linux if possible."""
    file = pathlib.Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def device_slug() -> str:
    """Name the device in a form for file names."""
    return re.sub(r"[^a-z0-9]+", "-", jax.devices()[0].device_kind.lower()).strip("-")


def memory_gigabytes() -> float:
    """Return the memory of the device, or of the machine where the device does not report it."""
    told = jax.devices()[0].memory_stats() or {}
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return 1e-9 * told.get("bytes_limit", physical)
