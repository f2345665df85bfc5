"""What runs `experiments.bench`."""

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


def describe(
    products: Mapping[str, timing.Product], rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Say what ran this and what its matrix products reached, by type, between the calls."""
    rates = {}
    for dtype, product in products.items():
        measured = [r["product_gflops"] for r in rows if r["compute_dtype"] == dtype]
        rates[dtype] = float(np.median(measured)) if measured else product.peak
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "product_sizes": {dtype: product.size for dtype, product in products.items()},
        "product_gflops": rates,
        "versions": results.versions(),
    }


def cpu_name() -> str:
    """Name the model of the processor, as Linux does where it does."""
    file = pathlib.Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def device_slug() -> str:
    """Name the device for a file name."""
    return re.sub(r"[^a-z0-9]+", "-", jax.devices()[0].device_kind.lower()).strip("-")


def memory_gigabytes() -> float:
    """Memory of the device, or of the machine where the device tells none."""
    told = jax.devices()[0].memory_stats() or {}
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return 1e-9 * told.get("bytes_limit", physical)
