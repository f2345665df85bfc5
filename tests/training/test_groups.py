"""Trainings that share a program end as each does alone, whatever seed and setting it has."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_pretrain import make_program

from mtm_jax import tokens
from mtm_jax.errors import UserError
from mtm_jax.models import packing as gathering
from mtm_jax.training import pretrain
from mtm_jax.training import trainer as training

STEPS = 4
# Seed, learning rate, entropy target.
GROUPS = {
    "seeds": ((3, 1e-2, -3.0), (4, 1e-2, -3.0)),
    "settings": ((3, 1e-2, -3.0), (4, 1e-3, 1.0)),
}


@pytest.fixture(scope="module")
def program():
    return make_program("m3pc")


def config_of(program, rate, target):
    optim = dataclasses.replace(program.config.optim, learning_rate=rate)
    loss = dataclasses.replace(program.config.loss, entropy_target=target)
    return dataclasses.replace(program.config, optim=optim, loss=loss)


@pytest.fixture(scope="module")
def together(program):
    @functools.cache
    def train(group):
        configs = [config_of(program, *settings) for _, *settings in GROUPS[group]]
        trainer = pretrain.make_group_trainer(configs, program.model, program.stats)
        keys = jnp.stack([jax.random.key(seed) for seed, *_ in GROUPS[group]])
        states, metrics = trainer.run(trainer.init(keys), program.data, STEPS)
        return states, jax.device_get(metrics)

    return train


@pytest.fixture(scope="module")
def alone(program):
    @functools.cache
    def trainer(*settings):
        config = config_of(program, *settings)
        return pretrain.make_trainer(config, program.model, program.stats)

    @functools.cache
    def train(seed, *settings):
        state = trainer(*settings).init(jax.random.key(seed))
        state, metrics = trainer(*settings).run(state, program.data, STEPS)
        return state, jax.device_get(metrics)

    return train


@pytest.fixture(scope="module")
def outputs(program):
    """What parameters compute; some of them, such as the biases of keys, change no output."""
    values = {m: x[None, : program.config.model.window] for m, x in program.data.values.items()}
    encoded = tokens.encode_modalities(program.config.model.modalities, program.stats, values)
    visible = {m: jnp.ones(x.shape[:2], bool) for m, x in encoded.items()}
    return jax.jit(lambda params: program.model.apply(params, encoded, visible))


def assert_close(a, b):
    close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4)
    jax.tree.map(close, a, b)


@pytest.mark.parametrize("group", GROUPS)
def test_each_ends_as_it_does_alone(group, together, alone, outputs):
    states, metrics = together(group)
    for k, member in enumerate(GROUPS[group]):
        state, row = alone(*member)
        of_group = training.member(states, k)
        assert_close(outputs(of_group.params), outputs(state.params))
        assert_close(of_group.log_sigma, state.log_sigma)
        assert_close({name: value[k] for name, value in metrics.items()}, row)
        assert jnp.array_equal(jax.random.key_data(of_group.key), jax.random.key_data(state.key))


def test_settings_make_a_difference(together, outputs):
    ends = [training.member(together(group)[0], 1) for group in GROUPS]
    one, other = (outputs(state.params)["states"] for state in ends)
    assert not np.allclose(one, other, rtol=1e-2, atol=1e-3)
    assert ends[0].log_sigma != ends[1].log_sigma


def test_a_group_of_states_comes_apart_as_it_was_put_together(program):
    init = pretrain.make_trainer(program.config, program.model, program.stats).init
    states = [init(jax.random.key(seed)) for seed in range(2)]
    stacked = training.stack(states)
    for k, state in enumerate(states):
        parts = [jax.tree.map(_bits, s) for s in (training.member(stacked, k), state)]
        jax.tree.map(np.testing.assert_array_equal, *parts)


def _bits(x):
    is_key = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(x) if is_key else x)


def test_other_differences_are_refused(program):
    other = dataclasses.replace(program.config, batch_size=16)
    with pytest.raises(UserError, match="learning rate and the entropy target only"):
        pretrain.make_group_trainer([program.config, other], program.model, program.stats)


def test_a_group_gathers_only_if_the_windows_of_all_fit(program):
    specs = program.config.model.modalities
    batch, window = gathering.SMALLEST_BATCH, program.config.model.window
    nothing, everything = (
        {m.name: jnp.full((batch, window), seen) for m in specs} for seen in (False, True)
    )

    def choose(visible):
        def compute(pairs):
            return jnp.bool_(pairs is not None)

        return gathering.in_pairs_if_they_fit(specs, visible, compute, training.GROUP)

    choose_all = jax.vmap(choose, axis_name=training.GROUP)
    for masks, taken in (((nothing, nothing), True), ((nothing, everything), False)):
        visible = {m.name: jnp.stack([mask[m.name] for mask in masks]) for m in specs}
        assert choose_all(visible).tolist() == [taken] * 2
        assert "cond[" in str(jax.make_jaxpr(choose_all)(visible))  # only one way is computed
