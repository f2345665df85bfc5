"""Programs of `experiments.bench` that train: window sampling and one gradient step."""

from __future__ import annotations

import jax
import numpy as np

from experiments import bench_timing
from mtm_jax import dataset, model, operations, pretrain
from mtm_jax.config import MaskConfig, OptimConfig, PretrainConfig
from mtm_jax.types import DataInfo, Trajectories

_LIMIT = 1000  # steps of an episode


def prepare(network: model.Model, batch_size: int) -> list[list[bench_timing.Program]]:
    """Compile both for one model, on random data."""
    settings = PretrainConfig(
        model=network.config,
        masks=MaskConfig(),
        optim=OptimConfig(total_steps=1000, warmup_steps=10),
        batch_size=batch_size,
    )
    dims, window = {m.name: m.features for m in network.config.modalities}, network.config.window
    data = dataset.make_dataset(_trajectories(dims["states"], dims["actions"]), window)
    trainer = pretrain.make_trainer(settings, network, dataset.compute_stats(data))
    state = trainer.init(jax.random.key(0))

    def sample(key: jax.Array, data: dataset.Dataset) -> dataset.Windows:
        return dataset.sample_windows(key, data, batch_size, window)

    def train(state: pretrain.TrainState, data: dataset.Dataset) -> pretrain.TrainState:
        return trainer.run(state, data, 1)[0]

    step = operations.training_step(network.config, batch_size)
    found = []
    for what, function, arguments, count in (
        ("sampling", sample, (jax.random.key(1), data), 0),
        ("training", train, (state, data), step),
    ):
        call, memory = bench_timing.compile_call(function, arguments)
        name = {"what": what, "width": network.config.width, "batch_size": batch_size}
        name |= dict.fromkeys(("candidates", "horizon", "environments", "pruned"))
        found.append([bench_timing.Program(name, call, count, 1, memory)])
    return found


def _trajectories(obs_dim: int, action_dim: int) -> Trajectories:
    """Random episodes: what the numbers are does not change the time."""
    rng = np.random.default_rng(0)
    episodes, length = 100, 500
    steps = episodes * length
    bound = (1.0,) * action_dim
    return Trajectories(
        observations=rng.normal(size=(steps, obs_dim)).astype(np.float32),
        actions=rng.uniform(-1, 1, (steps, action_dim)).astype(np.float32),
        rewards=rng.normal(size=steps).astype(np.float32),
        terminals=np.zeros(steps, bool),
        lengths=np.full(episodes, length),
        final_observations=np.zeros((episodes, obs_dim), np.float32),
        info=DataInfo("random", "bench", "Hopper-v5", _LIMIT, tuple(-b for b in bound), bound),
    )
