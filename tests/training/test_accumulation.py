"""A batch computed in parts gives the step of the whole batch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtm_jax.config import LossConfig, ModelConfig, OptimConfig, PretrainConfig
from mtm_jax.models import packing
from mtm_jax.models import trajectory_model as model
from mtm_jax.training import accumulation, dataset, pretrain, program
from mtm_jax.types import DataInfo, ModalitySpec, Trajectories

WINDOW, BATCH, STEPS = 3, 128, 3
SPECS = (
    ModalitySpec("states", 2),
    ModalitySpec("returns", 1),
    ModalitySpec("actions", 1, head="tanh_normal"),
)
CONFIG = PretrainConfig(
    ModelConfig(SPECS, WINDOW, 8, 2, 1, 1, 2, 0.0),
    loss=LossConfig(sigma_learning_rate=1e-2),
    optim=OptimConfig(learning_rate=1e-2, warmup_steps=0, total_steps=100),
    batch_size=BATCH,
)


def trajectories(steps=120):
    """Episodes shorter and longer than a window; half of them lack actions."""
    random = np.random.default_rng(0)
    lengths = np.tile([2, 13], steps // 15)
    return Trajectories(
        observations=random.normal(size=(steps, 2)).astype("f"),
        actions=random.uniform(-0.9, 0.9, (steps, 1)).astype("f"),
        rewards=random.normal(size=steps).astype("f"),
        terminals=np.zeros(steps, bool),
        lengths=lengths,
        final_observations=np.zeros((len(lengths), 2), np.float32),
        info=DataInfo("test", "test", "Hopper-v5", 20, (-1.0,), (1.0,)),
        available={"actions": np.arange(len(lengths)) % 4 < 2},
    )


def train(parts, **changes):
    """State and metrics after a few steps."""
    config = dataclasses.replace(CONFIG, micro_batches=parts, **changes)
    data = dataset.make_dataset(trajectories(), WINDOW)
    network = model.make_model(config.model)
    training = pretrain.make_training(config, network, dataset.compute_stats(data))
    compiled = program.make_program(training)
    return jax.device_get(compiled.run(compiled.init(jax.random.key(0)), data, STEPS))


@pytest.fixture(scope="module")
def whole():
    return train(1)


@pytest.mark.slow
def test_parts_give_the_step_of_the_whole(whole, monkeypatch):
    asked = []
    choose = packing.sum_over_turns

    def recorded(specs, visible, *rest):
        asked.append(visible["states"].shape)
        return choose(specs, visible, *rest)

    monkeypatch.setattr(packing, "sum_over_turns", recorded)
    state, metrics = train(2)
    assert set(asked) == {(BATCH // 2, WINDOW)}
    assert BATCH // 2 >= packing.MIN_BATCH
    expected_state, expected = whole
    assert metrics.keys() == expected.keys() and metrics["train/sigma"] > 0
    for name in expected:
        np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(state.log_sigma, expected_state.log_sigma, rtol=1e-6)
    assert_close(expected_state.opt_state, state.opt_state, 1e-5)
    assert_close(expected_state.params, state.params, 1e-4)


def assert_close(expected, found, tolerance):
    """Compare trees, but for biases of keys: attention does not depend on them."""
    pairs = zip(jax.tree.leaves_with_path(expected), jax.tree.leaves(found), strict=True)
    for (path, a), b in pairs:
        name = jax.tree_util.keystr(path)
        a, b = (np.delete(x, np.s_[8:16]) if "qkv']['bias" in name else x for x in (a, b))
        np.testing.assert_allclose(b, a, rtol=1e-3, atol=tolerance, err_msg=name)


def test_every_part_has_dropout_of_its_own():
    def compute(part, key):
        return part.sum() + jax.random.uniform(key, part.shape).sum()

    batch, key = jnp.zeros(4), jax.random.key(0)
    drawn = [jax.random.uniform(k, (2,)).sum() for k in jax.random.split(key, 2)]
    found = accumulation.sum_over_parts(compute, batch, key, 2)
    np.testing.assert_allclose(found, drawn[0] + drawn[1], rtol=1e-6)
    assert drawn[0] != drawn[1]


def test_every_row_is_in_one_part():
    batch = {"x": jnp.arange(12.0).reshape(6, 2)}
    seen = []

    def compute(part, key):
        assert part["x"].shape == (2, 2)
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), part["x"])
        return part["x"].sum()

    found = accumulation.sum_over_parts(compute, batch, jax.random.key(0), 3)
    jax.effects_barrier()
    assert found == 66.0
    assert sorted(x for part in seen for x in part[:, 0]) == [0, 2, 4, 6, 8, 10]
