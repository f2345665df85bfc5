"""Options of the recipe: averaged parameters, noise on the states, generators of random numbers."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_pretrain import assert_same_bits, make_setup, run

from mtm_jax.io import checkpoint
from mtm_jax.training import dataset, objective, pretrain, program

DECAY = 0.5


def change(setup, average=0.0, **changes):
    """The setup with other settings of its training."""
    optim = dataclasses.replace(setup.config.optim, average=average)
    config = dataclasses.replace(setup.config, optim=optim, **changes)
    training = pretrain.make_training(config, setup.model, setup.stats)
    return setup._replace(config=config, program=program.make_program(training))


@pytest.fixture(scope="module")
def plain():
    return make_setup("mtm")


@pytest.fixture(scope="module")
def averaged(plain):
    return change(plain, DECAY)


def assert_close(a, b):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), a, b)


def test_the_average_forgets_the_first_parameters_and_then_decays_as_it_is_told(averaged):
    state = averaged.program.init(jax.random.key(0))
    expected = jax.device_get(state.params)
    assert_same_bits(jax.device_get(state.average), expected)
    for step in range(1, 10):
        state, _ = run(averaged, 1, 1, state)
        decay = min(DECAY, (1 + step) / (10 + step))
        assert (decay == DECAY) == (step >= 8)
        mix = lambda old, new, d=decay: d * old + (1 - d) * np.asarray(new)  # noqa: E731
        expected = jax.tree.map(mix, expected, state.params)
    assert_close(state.average, expected)


def test_averaging_leaves_the_training_as_it_is_and_the_average_acts(plain, averaged):
    without, _ = run(plain, 2, 1)
    state, _ = run(averaged, 2, 1)
    assert without.average is None
    assert_same_bits(state.replace(average=None), without)
    assert_same_bits(pretrain.acting(without), without.params)
    assert_same_bits(pretrain.acting(state), state.average)


def test_a_run_with_every_option_is_restored_bit_for_bit(tmp_path):
    setup = change(make_setup("mtm", dropout=0.1), DECAY, state_noise=0.1, prng="rbg")
    undisturbed, _ = run(setup, 2, 1)
    state, _ = run(setup, 1, 1)
    step = int(state.step)
    checkpoint.Checkpoints(tmp_path).save(step, {"params": state.params}, state, {})
    fresh = setup.program.init(jax.random.key(9))
    restored = checkpoint.Checkpoints(tmp_path).restore_train(step, fresh)
    resumed, _ = run(setup, 1, 1, restored)
    assert_same_bits(resumed, undisturbed)


def batch_of(setup):
    """A batch as a step draws it."""
    config, model, keys = setup.config, setup.model, jax.random.split(jax.random.key(0), 3)

    @jax.jit
    def draw():
        windows = dataset.sample_windows(keys[0], setup.data, 32, config.model.window)
        batch = objective.make_batch(keys[1], config, model, setup.stats, windows)
        return objective.add_noise(pretrain.drawing_key(config, keys[2]), config, model, batch)

    return draw()


@pytest.mark.parametrize("prng", ["threefry", "rbg"])
def test_noise_is_on_the_states_that_the_model_sees_and_not_on_its_targets(plain, prng):
    clean, noisy = batch_of(plain), batch_of(change(plain, state_noise=0.3, prng=prng))
    assert_same_bits((clean.tokens, clean.visible), (noisy.tokens, noisy.visible))
    assert_same_bits(clean.inputs(), clean.tokens)
    off_by = noisy.inputs()["states"] - noisy.tokens["states"]
    np.testing.assert_allclose([off_by.mean(), off_by.std()], [0.0, 0.3], atol=0.05)
    others = {m: x for m, x in noisy.inputs().items() if m != "states"}
    assert_same_bits(others, {m: noisy.tokens[m] for m in others})


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_a_model_that_repeats_what_it_sees_is_wrong_by_the_noise(plain, noise):
    setup = change(plain, state_noise=noise)
    repeat = setup.model._replace(apply=lambda params, inputs, *_: inputs)
    batch = batch_of(setup)
    arguments = {}, batch, jnp.zeros(()), jax.random.key(0)
    metrics, _ = objective.loss_and_grads(setup.config, repeat, *arguments)
    assert float(metrics["train/states"]) == pytest.approx(noise**2, rel=0.3)
    assert float(metrics["train/loss"]) == pytest.approx(float(metrics["train/states"]), abs=1e-9)


def test_keys_of_the_other_generator_follow_from_those_of_the_step(plain):
    config = dataclasses.replace(plain.config, prng="rbg")
    keys = [pretrain.drawing_key(config, jax.random.key(seed)) for seed in (0, 0, 1)]
    same, again, other = (jax.random.normal(key, (4,)) for key in keys)
    assert jax.random.key_impl(keys[0]) == "rbg"
    np.testing.assert_array_equal(same, again)
    assert not np.allclose(same, other)
