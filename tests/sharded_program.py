"""A tiny training on all devices there are; started by tests/training/test_sharding.py.

python -m tests.sharded_program FOLDER
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np

from experiments.training import nonfinite
from mtm_jax.config import LossConfig, ModelConfig, OptimConfig, PretrainConfig
from mtm_jax.errors import UserError
from mtm_jax.io import checkpoint, trees
from mtm_jax.models import packing
from mtm_jax.models import trajectory_model as model
from mtm_jax.training import dataset, pretrain, program, sharding
from mtm_jax.types import DataInfo, ModalitySpec, Trajectories

WINDOW, RATES = 3, (1e-2, 2e-3)
SPECS = (ModalitySpec("states", 2), ModalitySpec("actions", 1, head="tanh_normal"))
CONFIG = PretrainConfig(
    ModelConfig(SPECS, WINDOW, 8, 2, 1, 1, 2, 0.0),
    loss=LossConfig(sigma_learning_rate=1e-2),
    optim=OptimConfig(learning_rate=RATES[0], warmup_steps=0, total_steps=100),
    batch_size=32,
)


def trajectories(steps: int = 120) -> Trajectories:
    """Episodes shorter and longer than a window."""
    random, lengths = np.random.default_rng(0), np.tile([2, 13], steps // 15)
    return Trajectories(
        observations=random.normal(size=(steps, 2)).astype("f"),
        actions=random.uniform(-0.9, 0.9, (steps, 1)).astype("f"),
        rewards=random.normal(size=steps).astype("f"),
        terminals=np.zeros(steps, bool),
        lengths=lengths,
        final_observations=np.zeros((len(lengths), 2), np.float32),
        info=DataInfo("test", "test", "Hopper-v5", 20, (-1.0,), (1.0,)),
    )


def assert_close(expected, found) -> None:
    """Compare trees, but for biases of keys: attention does not depend on them."""
    pairs = zip(jax.tree.leaves_with_path(expected), jax.tree.leaves(found), strict=True)
    for (path, a), b in pairs:
        name, a, b = jax.tree_util.keystr(path), np.asarray(a), np.asarray(b)
        a, b = (np.delete(x, np.s_[8:16]) if "qkv']['bias" in name else x for x in (a, b))
        np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-5, err_msg=name)


def assert_sums_alone(compiled, states, data) -> None:
    """Devices exchange sums, such as gradients, and no tokens: nothing else is communicated."""
    run = jax.jit(lambda states, data: compiled.run(states, data, 1))
    text = run.lower(states, data).compile().as_text()
    found = set(re.findall(r"(all-\w+|reduce-scatter|collective-\w+)(?:-start)?\(", text))
    assert found == {"all-reduce"}, found


def main(folder: pathlib.Path) -> None:
    """Train on one device and on all; compare; save what was trained on all."""
    packing.MIN_BATCH = 8  # of a device
    assert jax.device_count() == 4
    data = dataset.make_dataset(trajectories(), WINDOW)
    network, stats = model.make_model(CONFIG.model), dataset.compute_stats(data)
    key = jax.random.key(0)

    training = pretrain.make_training(CONFIG, network, stats)
    alone = program.make_program(training)
    initial = trees.to_host(alone.init(key).params)
    expected, metrics = alone.run(alone.init(key), data, 1)

    mesh = sharding.make_mesh(CONFIG)
    assert dict(mesh.shape) == {"seed": 1, "data": 4}
    divided = program.make_program(training, mesh)
    assert_sums_alone(divided, divided.init(key), sharding.replicate(data, mesh))
    state, found = divided.run(divided.init(key), sharding.replicate(data, mesh), 1)
    assert_close(metrics, found)
    state = sharding.local(state, mesh)
    assert_close(trees.to_host(expected), trees.to_host(state))
    assert {len(x.devices()) for x in jax.tree.leaves(state)} == {1}
    checkpoint.Checkpoints(folder).save(1, {"params": state.params}, state, {})
    np.savez(folder / "expected.npz", *jax.tree.leaves(trees.to_host(state)))

    configs = [
        dataclasses.replace(CONFIG, optim=dataclasses.replace(CONFIG.optim, learning_rate=rate))
        for rate in RATES
    ]
    mesh = sharding.make_mesh(CONFIG, members=2)
    assert dict(mesh.shape) == {"seed": 2, "data": 2}
    trainings = [pretrain.make_training(config, network, stats) for config in configs]
    group = program.make_group_program(trainings, mesh)
    states = group.init(jnp.stack([key, key]))
    assert not states.params["mask_token_states"].is_fully_replicated
    assert_sums_alone(group, states, sharding.replicate(data, mesh))
    states, rows = group.run(states, sharding.replicate(data, mesh), 1)
    assert_close(metrics["train/loss"], rows["train/loss"][0])
    params = trees.to_host(sharding.local(states, mesh).params)
    first, second = (jax.tree.map(lambda x, k=k: x[k], params) for k in range(2))
    assert_close(trees.to_host(expected.params), first)
    # The first step of Adam is as long as the learning rate of each.
    moved = [jax.tree.map(np.subtract, p, initial)["mask_token_states"] for p in (first, second)]
    np.testing.assert_allclose(moved[1], moved[0] * RATES[1] / RATES[0], rtol=1e-3)

    guards = [
        nonfinite.Guard(one, folder / name)
        for one, name in zip(trainings, ("first", "second"), strict=True)
    ]
    shapes, named = nonfinite.GuardedProgram(guards, mesh).shapes(sharding.replicate(data, mesh))
    assert shapes.step.shape == (2,) and named.keys() == rows.keys()
    broken = states.replace(log_sigma=states.log_sigma * jnp.array([1.0, jnp.nan]))
    try:
        nonfinite.GuardedProgram(guards, mesh).run(broken, sharding.replicate(data, mesh), 1)
    except UserError as error:
        assert "in step 2: " in str(error) and str(folder / "second") in str(error), error
    else:
        raise AssertionError("a training that went wrong was not stopped")
    print("the same on 4 devices")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
