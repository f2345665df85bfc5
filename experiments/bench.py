"""Time training steps and decisions, beside what the machine can do at the same moment.

Every figure is a median over calls that alternate with a matrix product, so that a machine whose
speed drifts slows both; the share is of the float32 matrix-product rate measured in between.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import config_dict
from rich import console as rich_console
from rich import table as rich_table

from experiments import cli
from mtm_jax import dataset, model, pretrain
from mtm_jax.config import MaskConfig, ModelConfig, OptimConfig, PretrainConfig
from mtm_jax.planning import context as context_lib
from mtm_jax.planning import roles
from mtm_jax.types import DataInfo, ModalitySpec, Trajectories

OBS_DIM, ACTION_DIM, LIMIT = 11, 3, 1000  # Hopper's
_PRODUCT_SIZE = 1024


class Timed(NamedTuple):
    """One line of the table."""

    name: str
    seconds: float
    gflops: float  # per call, as XLA counts them
    product_rate: float  # GFLOP/s of matrix products between the calls


def main(config: config_dict.ConfigDict) -> None:
    """Time everything and print the table."""
    rows = []
    for width in config.widths:
        rows += bench_width(config, width)
    table = rich_table.Table(title=f"{jax.devices()[0].device_kind}, float32")
    for column in ("what", "time", "per second", "GFLOP", "GFLOP/s", "of matrix products"):
        justify = "left" if column == "what" else "right"
        table.add_column(column, justify=justify, no_wrap=True)
    for row in rows:
        rate = row.gflops / row.seconds
        table.add_row(
            row.name,
            f"{1e3 * row.seconds:.2f} ms",
            f"{1 / row.seconds:.1f}",
            f"{row.gflops:.3f}",
            f"{rate:.1f}",
            f"{100 * rate / row.product_rate:.0f}%",
        )
    rich_console.Console().print(table)


def bench_width(config: config_dict.ConfigDict, width: int) -> list[Timed]:
    """Time window sampling, one training step and one batched decision at one width."""
    settings = PretrainConfig(
        model=ModelConfig(modalities=_modalities(), width=width, dropout=0.0),
        masks=MaskConfig(),
        optim=OptimConfig(total_steps=1000, warmup_steps=10),
        batch_size=config.batch_size,
    )
    data = dataset.make_dataset(_trajectories(), settings.model.window)
    stats = dataset.compute_stats(data)
    network = model.make_model(settings.model)
    trainer = pretrain.make_trainer(settings, network, stats)
    state = trainer.init(jax.random.key(0))
    window = settings.model.window

    def sample(key: jax.Array, data: dataset.Dataset) -> dataset.Windows:
        return dataset.sample_windows(key, data, config.batch_size, window)

    def train(state: pretrain.TrainState, data: dataset.Dataset) -> pretrain.TrainState:
        return trainer.run(state, data, 1)[0]

    def act(params: dict, contexts: context_lib.Context) -> jax.Array:
        target = jnp.float32(1.0)
        choose = lambda c: roles.act(network, params, stats, c, target)  # noqa: E731
        return jax.vmap(choose)(contexts)

    obs = jnp.zeros((config.environments, OBS_DIM))
    contexts = jax.vmap(lambda o: context_lib.begin(o, ACTION_DIM, window))(obs)
    batch, count = config.batch_size, config.environments
    return [
        measure(f"sample {batch} windows", sample, (jax.random.key(1), data), config.repeats),
        measure(f"width {width}: training step", train, (state, data), config.repeats),
        measure(f"width {width}: {count} decisions", act, (state.params, contexts), config.repeats),
    ]


def measure(name: str, function: Callable, arguments: tuple, repeats: int) -> Timed:
    """Take the median time of a function, alternating with a matrix product."""
    compiled = jax.jit(function).lower(*arguments).compile()
    x = jnp.ones((_PRODUCT_SIZE, _PRODUCT_SIZE))
    product = jax.jit(lambda a: a @ a).lower(x).compile()
    times, product_times = [], []
    for _ in range(repeats + 1):  # the first call of each is not counted
        times.append(_seconds(compiled, arguments))
        product_times.append(_seconds(product, (x,)))
    rate = 2e-9 * _PRODUCT_SIZE**3 / statistics.median(product_times[1:])
    gflops = 1e-9 * compiled.cost_analysis().get("flops", 0.0)
    return Timed(name, statistics.median(times[1:]), gflops, rate)


def _seconds(compiled: Callable, arguments: tuple) -> float:
    started = time.perf_counter()
    jax.block_until_ready(compiled(*arguments))
    return time.perf_counter() - started


def _modalities() -> tuple[ModalitySpec, ...]:
    return (
        ModalitySpec("states", OBS_DIM),
        ModalitySpec("returns", 1),
        ModalitySpec("actions", ACTION_DIM, head="tanh_normal"),
        ModalitySpec("rewards", 1),
    )


def _trajectories() -> Trajectories:
    """Random episodes: what the numbers are does not change the time."""
    rng = np.random.default_rng(0)
    episodes, length = 100, 500
    steps = episodes * length
    bound = (1.0,) * ACTION_DIM
    return Trajectories(
        observations=rng.normal(size=(steps, OBS_DIM)).astype(np.float32),
        actions=rng.uniform(-1, 1, (steps, ACTION_DIM)).astype(np.float32),
        rewards=rng.normal(size=steps).astype(np.float32),
        terminals=np.zeros(steps, bool),
        lengths=np.full(episodes, length),
        final_observations=np.zeros((episodes, OBS_DIM), np.float32),
        info=DataInfo("random", "bench", "Hopper-v5", LIMIT, tuple(-b for b in bound), bound),
    )


if __name__ == "__main__":
    cli.run(main)
