"""Training on several devices and hosts: one mesh, and the same program on each of its devices.

A mesh has two axes. Over `DATA` every batch is divided, over `SEED` the trainings of a group. Data
are whole on every device; each draws the same batch, computes its block of rows, and sums gradients
with the others, so that no window's tokens leave their device.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mtm_jax.config import PretrainConfig
from mtm_jax.errors import UserError
from mtm_jax.training import trainer as training

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


def over_devices(
    make: Callable[[str | None], training.Trainer], mesh: Mesh | None
) -> training.Trainer:
    """Build a trainer whose batches are divided over a mesh; `make` takes the axis."""
    return make(None) if mesh is None else _mapped(make(DATA), mesh, P())


def group_over_devices(
    make: Callable[[str | None, str | None], training.Trainer], mesh: Mesh | None
) -> training.Trainer:
    """Build the trainer of a group; `make` takes the axes of batches and of trainings."""
    return make(None, None) if mesh is None else _mapped(make(DATA, SEED), mesh, P(SEED))


def _mapped(trainer: training.Trainer, mesh: Mesh, states: P) -> training.Trainer:
    """Run a trainer on every device; what it returns is the same on all that share a state."""
    everywhere = functools.partial(jax.shard_map, mesh=mesh, check_vma=False)

    @functools.partial(jax.jit, static_argnums=2, donate_argnums=0)
    def run(state: Any, data: Any, length: int) -> tuple[Any, training.Metrics]:
        def steps(state: Any, data: Any) -> tuple[Any, training.Metrics]:
            return trainer.run(state, data, length)

        return everywhere(steps, in_specs=(states, P()), out_specs=states)(state, data)

    @jax.jit
    def locate(state: Any, data: Any, limit: int) -> training.Located:
        steps = everywhere(trainer.locate, in_specs=(states, P(), P()), out_specs=states)
        return steps(state, data, jnp.asarray(limit))

    init = jax.jit(trainer.init, out_shardings=NamedSharding(mesh, states))
    return training.Trainer(init, run, locate)


def distribute(states: Any, mesh: Mesh | None, group: bool) -> Any:
    """Put a state, or that of a group, where the programs above expect it."""
    if mesh is None:
        return states
    return jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, P(SEED) if group else P()))(
        states
    )


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
