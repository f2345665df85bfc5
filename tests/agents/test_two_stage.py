"""Two-stage inference is two in-paintings, one after the other."""

import dataclasses

import numpy as np
import pytest

from mtm_jax.agents import acting
from mtm_jax.agents import agent as agent_lib
from mtm_jax.config import PromptConfig
from mtm_jax.errors import UserError

RNG = np.random.default_rng(0)
OBS = RNG.normal(size=(3, 2, 11)).astype(np.float32)  # steps, environments, dimensions
SLOTS = np.arange(8)


@pytest.fixture(scope="module")
def agent(drawn_run):
    return agent_lib.load(drawn_run)


def test_the_action_is_inferred_from_the_states_that_the_return_asks_for(agent):
    actor = acting.make_actor(agent, "two_stage")
    memory = actor.start(OBS[0])
    first = np.asarray(actor.decide(memory))
    memory = actor.observe(memory, first, np.zeros(2), OBS[1])
    second = np.asarray(actor.decide(memory))
    states = np.zeros((8, 11), np.float32)
    states[:2] = OBS[:2, 1]
    returns = np.full((8, 1), agent.target_token(1.0))
    shown = {"states": SLOTS < 2, "returns": SLOTS >= 0}
    wanted = agent.inpaint({"states": states, "returns": returns}, shown)["states"]
    actions = np.zeros((8, 3), np.float32)
    actions[0] = agent.to_environment(first[1])
    shown = {"states": SLOTS >= 0, "actions": SLOTS < 1}
    expected = agent.inpaint({"states": wanted, "actions": actions}, shown)["actions"][1]
    np.testing.assert_allclose(agent.to_environment(second[1]), expected, rtol=1e-4, atol=1e-5)


def test_the_window_keeps_room_for_a_later_state(agent):
    assert acting.make_actor(dataclasses.replace(agent, history=7), "two_stage").history == 6


def test_what_two_stages_cannot_do_is_refused(agent):
    specs = tuple(m for m in agent.model.config.modalities if m.name != "returns")
    config = dataclasses.replace(agent.model.config, modalities=specs)
    blind = dataclasses.replace(agent, model=agent.model._replace(config=config))
    with pytest.raises(UserError, match="has no returns, which two_stage needs"):
        acting.make_actor(blind, "two_stage")
    with pytest.raises(UserError, match="own two prompts, and a prompt was asked for"):
        acting.make_actor(agent, "two_stage", prompt=PromptConfig())
    with pytest.raises(UserError, match="and exploration was asked for"):
        acting.make_actor(agent, "two_stage", explore=True)
