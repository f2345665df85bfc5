"""What all tests share: the device, the profile of hypothesis, the root of the repository."""

from __future__ import annotations

import logging
import os
import pathlib

# Before jax is imported anywhere. Test processes side by side would fight over one accelerator's
# memory; set JAX_PLATFORMS to test on one.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import hypothesis
import pytest
import rich

# The first call of a jitted function compiles, which no deadline survives.
hypothesis.settings.register_profile("jit", deadline=None, derandomize=True, max_examples=25)
hypothesis.settings.load_profile("jit")


@pytest.fixture(scope="session")
def root() -> pathlib.Path:
    """Root of the repository."""
    return pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture
def clean_logging():
    """Give the "mtm_jax" logger and rich's console back as they were."""
    logger = logging.getLogger("mtm_jax")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before
    rich.reconfigure(stderr=False)
