"""Features are the encoder's output; they compile, vectorise and have gradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtm_jax
from mtm_jax import tokens
from mtm_jax.agents import agent as agent_lib
from mtm_jax.agents import encoding
from mtm_jax.errors import UserError

RNG = np.random.default_rng(0)
STATES = RNG.normal(size=(4, 11)).astype(np.float32)
ACTIONS = RNG.uniform(-0.9, 0.9, (4, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def agent(drawn_run):
    return agent_lib.load(drawn_run)


@pytest.mark.parametrize("names", [("states",), ("states", "actions")])
def test_features_are_the_encoders_output_at_the_first_slot_of_a_window(agent, names):
    given = {"states": STATES, "actions": ACTIONS}
    values, visible = {}, {}
    for spec in agent.model.config.modalities:
        x = given.get(spec.name, np.zeros((4, spec.features)))
        values[spec.name] = jnp.repeat(jnp.asarray(x)[:, None], agent.model.config.window, 1)
        shown = (jnp.arange(agent.model.config.window) == 0) & (spec.name in names)
        visible[spec.name] = jnp.broadcast_to(shown, (4, agent.model.config.window))
    encoded = tokens.encode_modalities(agent.model.config.modalities, agent.stats, values)
    whole = agent.model.encode(agent.params, encoded, visible)
    expected = np.concatenate([whole[name][:, 0, 0] for name in names], axis=-1)
    found = mtm_jax.encode(agent, *(given[name] for name in names))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_one_state_is_a_row_of_a_batch_and_of_a_vmap(agent):
    found = mtm_jax.encode(agent, STATES, ACTIONS)
    np.testing.assert_allclose(mtm_jax.encode(agent, STATES[0], ACTIONS[0]), found[0], atol=1e-5)
    each = jax.vmap(lambda s, a: mtm_jax.encode(agent, s, a))(STATES, ACTIONS)
    np.testing.assert_allclose(each, found, atol=1e-5)


def test_states_actions_and_parameters_have_gradients(agent):
    weigh = jnp.arange(32.0)

    def total(states, actions, params):
        return mtm_jax.encode(agent, states, actions, params=params) @ weigh

    kept = encoding.encoder_params(agent.params)
    found = jax.jit(jax.grad(total, (0, 1, 2)))(STATES[0], ACTIONS[0], kept)
    assert jnp.abs(found[0]).min() > 0 and jnp.abs(found[1]).min() > 0
    assert jnp.abs(found[2]["encoder_embed_states"]["kernel"]).max() > 0
    assert "decoder" not in kept and "decoder" in agent.params


def test_td3_sees_what_encode_returns(agent):
    states, pairs = (encoding.td3_features(agent, kind) for kind in encoding.KINDS)
    alone, joint = mtm_jax.encode(agent, STATES), mtm_jax.encode(agent, STATES, ACTIONS)
    unit = agent.from_environment(ACTIONS)
    np.testing.assert_allclose(states.states(states.params, STATES), alone, atol=1e-6)
    np.testing.assert_allclose(pairs.pairs(pairs.params, STATES, unit), joint, atol=1e-5)
    critic = states.pairs(states.params, STATES, unit)
    np.testing.assert_allclose(critic, np.concatenate([alone, unit], -1), atol=1e-6)


def without_actions(agent):
    config = agent.model.config
    kept = tuple(m for m in config.modalities if m.name != "actions")
    model = mtm_jax.make_model(dataclasses.replace(config, modalities=kept))
    return dataclasses.replace(agent, model=model)


def test_a_model_without_actions_encodes_states_alone(agent):
    lame = without_actions(agent)
    np.testing.assert_allclose(mtm_jax.encode(lame, STATES), mtm_jax.encode(agent, STATES))
    with pytest.raises(UserError, match=r"has no actions, its tokens are .*encode states alone"):
        mtm_jax.encode(lame, STATES, ACTIONS)
    with pytest.raises(UserError, match="has no actions"):
        encoding.td3_features(lame, "pairs")


@pytest.mark.parametrize(
    ("states", "actions", "says"),
    [
        (STATES[:, :9], None, r"states have shape \(4, 9\); the last axis must be 11"),
        (STATES, ACTIONS[:, :2], r"actions have shape \(4, 2\); the last axis must be 3"),
        (STATES, ACTIONS[:2], r"\(4, 11\) and the actions \(2, 3\); give one action for each"),
        (np.where(STATES > 0, np.inf, STATES), None, "states are not finite: inf at"),
        ("left", None, "the states: expected real numbers"),
        (3.0, None, r"states have shape \(\)"),
    ],
)
def test_what_the_model_cannot_encode_is_refused(agent, states, actions, says):
    with pytest.raises(UserError, match=says):
        mtm_jax.encode(agent, states, actions)


def test_another_width_is_refused_inside_of_jit(agent):
    with pytest.raises(UserError, match="the last axis must be 11"):
        jax.jit(lambda s: mtm_jax.encode(agent, s))(STATES[:, :9])
