"""Settings of jax, and the device, that change the numbers of a training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

_SETTINGS = ("jax_enable_x64", "jax_default_prng_impl", "jax_threefry_partitionable")
_SETTINGS += ("jax_default_matmul_precision",)


def present() -> dict[str, Any]:
    """Collect them, as JSON values."""
    settings = {name: getattr(jax.config, name) for name in _SETTINGS}
    return {"platform": jax.default_backend(), **settings}


def differences(saved: Mapping[str, Any]) -> list[str]:
    """Say in which of them this program differs from the one that saved, with both values."""
    return [
        f"{name} is {saved[name]} there and {value} here"
        for name, value in present().items()
        if name in saved and saved[name] != value
    ]
