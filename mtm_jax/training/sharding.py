"""Training on several devices and hosts: one mesh, and the same program on each of its devices.

A mesh has two axes. Over `DATA` every batch is divided, over `SEED` the runs of a group. The data
set is replicated; each device computes a block of the rows of every batch, and XLA sums gradients
over the devices.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mtm_jax.config import PretrainConfig
from mtm_jax.errors import UserError

T = TypeVar("T")

SEED, DATA = "seed", "data"


def make_mesh(config: PretrainConfig, members: int = 1) -> Mesh | None:
    """Make the mesh of all devices; None where there is one.

    Args:
        config: of the training.
        members: trainings in one program; their number decides how many devices each gets.

    Raises:
        UserError: the devices do not divide a batch.
    """
    count = jax.device_count()
    if count == 1:
        return None
    seeds = math.gcd(members, count)
    parts = count // seeds * config.micro_batches
    if config.batch_size % parts:
        raise UserError(
            f"a batch_size of {config.batch_size} cannot be divided among {count // seeds} devices "
            f"in {config.micro_batches} micro_batches each; choose a multiple of {parts}"
        )
    return jax.make_mesh((seeds, count // seeds), (SEED, DATA), axis_types=(AxisType.Auto,) * 2)


def jit(function: Callable, mesh: Mesh | None, placement: P, **options: Any) -> Callable:
    """Compile a function for all devices of a mesh, or for the only device.

    Args:
        function: sees the mesh in `batch_shards` and `divide`.
        mesh: of `make_mesh`.
        placement: of what the function returns.
        options: of `jax.jit`.
    """
    if mesh is None:
        return jax.jit(function, **options)

    @functools.wraps(function)
    def on_mesh(*args: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*args)

    return jax.jit(on_mesh, out_shardings=NamedSharding(mesh, placement), **options)


def batch_shards() -> int:
    """Count the devices that a batch is divided over, in the program that is being compiled."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.shape[DATA]


def divide(tree: Any) -> Any:
    """Divide the leading axis of every array over the devices of `batch_shards`."""
    if batch_shards() == 1:
        return tree
    return jax.lax.with_sharding_constraint(tree, P(DATA))


def distribute(states: Any, mesh: Mesh | None) -> Any:
    """Put the stacked states of a group where its program expects them."""
    if mesh is None:
        return states
    return jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, P(SEED)))(states)


def replicate(tree: Any, mesh: Mesh | None) -> Any:
    """Put a tree of arrays whole on every device; every process has the same one."""
    if mesh is None:
        return tree
    return jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, P()))(tree)


def local(tree: Any, mesh: Mesh | None) -> Any:
    """Give this process a tree of arrays on one of its devices; every process calls it.

    What lies whole on that device is not copied.
    """
    if mesh is None:
        return tree
    if not all(x.is_fully_replicated for x in jax.tree.leaves(tree)):
        tree = replicate(tree, mesh)
    return jax.tree.map(lambda x: x.addressable_data(0), tree)


def is_main() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def main_first(call: Callable[[], T]) -> T:
    """Call a function that reads and writes files in the first process, then in the others."""
    if jax.process_count() == 1:
        return call()
    if is_main():
        result = call()
    multihost_utils.sync_global_devices("main_first")
    return result if is_main() else call()


def anywhere(flag: bool) -> bool:
    """Whether a flag is set in any process; every process calls it."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.asarray(flag)).any())
