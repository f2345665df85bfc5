"""Runs that share a program end as each does by itself, whatever seed and setting it has."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_pretrain import assert_same_bits, make_setup

from mtm_jax import tokens
from mtm_jax.errors import UserError
from mtm_jax.models import packing
from mtm_jax.training import pretrain, program

STEPS = 4
# Seed, learning rate, entropy target.
GROUPS = {
    "several": ((3, 1e-2, -3.0), (3, 1e-3, 1.0), (4, 1e-2, -3.0)),
    "one": ((3, 1e-2, -3.0),),
}


@pytest.fixture(scope="module")
def setup():
    return make_setup("m3pc")


def training_of(setup, rate, target):
    optim = dataclasses.replace(setup.config.optim, learning_rate=rate, average=0.5)
    loss = dataclasses.replace(setup.config.loss, entropy_target=target)
    config = dataclasses.replace(setup.config, optim=optim, loss=loss)
    return pretrain.make_training(config, setup.model, setup.stats)


@pytest.fixture(scope="module")
def together(setup):
    @functools.cache
    def train(group):
        trainings = [training_of(setup, *settings) for _, *settings in GROUPS[group]]
        compiled = program.make_group_program(trainings)
        keys = jnp.stack([jax.random.key(seed) for seed, *_ in GROUPS[group]])
        states, metrics = compiled.run(compiled.init(keys), setup.data, STEPS)
        return states, jax.device_get(metrics)

    return train


@pytest.fixture(scope="module")
def alone(setup):
    @functools.cache
    def compiled(*settings):
        return program.make_program(training_of(setup, *settings))

    @functools.cache
    def train(seed, *settings):
        state = compiled(*settings).init(jax.random.key(seed))
        state, metrics = compiled(*settings).run(state, setup.data, STEPS)
        return state, jax.device_get(metrics)

    return train


@pytest.fixture(scope="module")
def outputs(setup):
    """What parameters compute; some of them, such as the biases of keys, change no output."""
    values = {m: x[None, : setup.config.model.window] for m, x in setup.data.values.items()}
    encoded = tokens.encode_modalities(setup.config.model.modalities, setup.stats, values)
    visible = {m: jnp.ones(x.shape[:2], bool) for m, x in encoded.items()}
    return jax.jit(lambda params: setup.model.apply(params, encoded, visible))


def assert_close(a, b):
    close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4)
    jax.tree.map(close, a, b)


def test_each_ends_as_it_does_by_itself(together, alone, outputs):
    states, metrics = together("several")
    for k, run in enumerate(GROUPS["several"]):
        state, row = alone(*run)
        member = program.member(states, k)
        assert_close(outputs(member.params), outputs(state.params))
        assert_close(outputs(member.average), outputs(state.average))
        assert_close(member.log_sigma, state.log_sigma)
        assert_close({name: value[k] for name, value in metrics.items()}, row)
        assert jnp.array_equal(jax.random.key_data(member.key), jax.random.key_data(state.key))


def test_a_group_of_one_ends_with_the_bits_of_a_run(together, alone):
    states, metrics = together("one")
    state, row = alone(*GROUPS["one"][0])
    assert_same_bits(program.member(states, 0), state)
    assert_same_bits(program.member(metrics, 0), row)


def test_settings_make_a_difference(together, outputs):
    ends = [program.member(together("several")[0], k) for k in range(2)]
    for one, other in ([s.params for s in ends], [s.average for s in ends]):
        one, other = (outputs(params)["states"] for params in (one, other))
        assert not np.allclose(one, other, rtol=1e-2, atol=1e-3)
    assert ends[0].log_sigma != ends[1].log_sigma


def test_states_that_are_stacked_come_apart_as_they_were(setup):
    states = [setup.program.init(jax.random.key(seed)) for seed in range(2)]
    stacked = program.stack(states)
    for k, state in enumerate(states):
        assert_same_bits(program.member(stacked, k), state)


def test_other_differences_are_refused(setup):
    other = dataclasses.replace(setup.config, batch_size=16)
    trainings = [
        pretrain.make_training(config, setup.model, setup.stats) for config in (setup.config, other)
    ]
    with pytest.raises(UserError, match="differ in what is swept only.*batch_size=16"):
        program.make_group_program(trainings)


def test_a_group_takes_one_turn_only_if_the_windows_of_all_fit(setup):
    specs = setup.config.model.modalities
    batch, window = packing.MIN_BATCH, setup.config.model.window
    nothing, everything = (
        {m.name: jnp.full((batch, window), seen) for m in specs} for seen in (False, True)
    )

    def take(visible):
        def compute(taken, packed):
            return {"turns": jnp.int32(1), "taken": taken.astype(int)}

        return packing.sum_over_turns(specs, visible, compute)

    def twice(visible):
        return jax.tree.map(lambda x: x[0], jax.vmap(jax.vmap(take))(add_axis(visible)))

    for take_all in (jax.vmap(take), twice):
        for masks, turns in (((nothing, nothing), 1), ((nothing, everything), 2)):
            visible = {m.name: jnp.stack([mask[m.name] for mask in masks]) for m in specs}
            found = take_all(visible)
            assert found["turns"].tolist() == [turns] * 2
            assert (found["taken"] == 1).all()


def add_axis(tree):
    return jax.tree.map(lambda x: x[None], tree)
