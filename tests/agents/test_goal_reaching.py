"""Actors with goals: one compilation, the policy like the actor, and goals that do not suit."""

import dataclasses
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtm_jax.agents import acting, goal_reaching
from mtm_jax.agents import agent as agent_lib
from mtm_jax.config import GoalConfig, PlanConfig
from mtm_jax.data import goal_files
from mtm_jax.envs.goals import waypoints
from mtm_jax.errors import UserError
from mtm_jax.planning import backward

RNG = np.random.default_rng(3)
OBS = RNG.normal(size=(12, 2, 11)).astype(np.float32)
STATES = np.sin(np.arange(30)[:, None] / 9 + np.arange(11)).astype(np.float32)


@pytest.fixture(scope="module")
def agent(drawn_run):
    return agent_lib.load(drawn_run)


def play(actor, steps=12):
    memory, actions = actor.start(OBS[0]), []
    for n in range(1, steps + 1):
        actions.append(np.asarray(actor.decide(memory)))
        memory = actor.observe(memory, actions[-1], np.zeros(2, np.float32), OBS[n % 12])
    return np.stack(actions)


def test_a_policy_acts_like_the_batched_actor(agent, method="m3pc_goal"):
    goals = waypoints.of_episode(STATES, spacing=3)
    actions = play(acting.make_actor(agent, method, goals=goals))
    policy = agent.policy(method, goals=goals)
    for n in range(12):
        found = policy.act(OBS[n, 0], None if n == 0 else 0.0)
        np.testing.assert_allclose(found, agent.to_environment(actions[n, 0]), rtol=1e-4, atol=1e-5)


def test_an_episode_compiles_one_program(agent, monkeypatch):
    traced, decide = [], backward.decide
    monkeypatch.setattr(backward, "decide", lambda *a, **k: traced.append(1) or decide(*a, **k))
    aim = GoalConfig(inpainting=1)  # which no other test has
    for shift in (0.0, 1.0):  # neither other goals nor another step compile anew
        goals = waypoints.of_episode(STATES + shift, spacing=4).only(1, 2)
        play(acting.make_actor(agent, "m3pc_goal", goals=goals, aim=aim))
    assert len(traced) == 1


@pytest.mark.slow
def test_each_environment_may_have_goals_of_its_own(agent):
    first, second = (waypoints.make(s) for s in (STATES[:4], STATES[4:8]))
    how = {"method": "m3pc_goal", "config": GoalConfig(), "complete": True}
    stack = lambda *x: jnp.stack(x)  # noqa: E731
    both = jax.tree.map(stack, *((g.states, g.steps, g.given) for g in (first, second)))
    contexts = acting.make_actor(agent, goals=None).start(OBS[0]).contexts
    model = agent.model, agent.params, agent.stats
    found = goal_reaching.choose(*model, contexts, backward.Waypoints(*both), **how)
    for e, goals in enumerate((first, second)):
        actor = acting.make_actor(agent, "m3pc_goal", goals=goals)
        alone = actor.decide(actor.start(OBS[0, e : e + 1]))
        np.testing.assert_allclose(found.action[e], alone[0], rtol=1e-4, atol=1e-5)


def test_goals_are_an_array_a_file_or_goals(agent, tmp_path):
    goal_files.save(waypoints.make(STATES), tmp_path / "goals.npz")
    given = (STATES, tmp_path / "goals.npz", waypoints.make(STATES))
    found = [play(acting.make_actor(agent, "goal_mask", goals=g), steps=3) for g in given]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_a_goal_far_outside_of_the_data_is_warned_of(agent, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("mtm_jax"), "propagate", True)
    states = STATES.copy()
    states[5, 2] = 40.0
    with caplog.at_level(logging.WARNING, "mtm_jax"):
        agent.policy("m3pc_goal", goals=STATES)
        agent.policy("m3pc_goal", goals=waypoints.make(states).only(0, 1))
        assert not caplog.records
        agent.policy("m3pc_goal", goals=states)
    assert "goal 5 is 40 in dimension 2, which lies between" in caplog.text


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, r"m3pc_goal needs goals; give goals=\.\.\."),
        (
            {"goals": STATES[:, :10]},
            "goals have 10 dimensions, and states of .* have 11",
        ),
        ({"goals": waypoints.make(STATES, env="walker2d")}, "goals are for walker2d.*on hopper"),
        ({"goals": waypoints.pose(STATES[0], 9)}, r"up to 9 steps apart.*GoalConfig\(reach=7\)"),
        (
            {"goals": STATES, "aim": GoalConfig(ahead=8)},
            "8 steps away has no slot",
        ),
        ({"goals": STATES, "aim": {"ahead": 1}}, "the aim is a dict; give a mtm_jax.GoalConfig"),
        ({"goals": STATES, "seed": 0}, "takes no seed"),
        ({"goals": STATES, "plan": PlanConfig()}, "takes no plan"),
        ({"goals": STATES, "method": "rcbc"}, "rcbc acts towards no goals.*use m3pc_goal"),
        ({"goals": {"states": STATES}}, "states of goals have type object"),
    ],
)
def test_goals_that_do_not_suit_are_refused(agent, settings, says):
    with pytest.raises(UserError, match=says):
        agent.policy(**{"method": "m3pc_goal", **settings})


def test_goals_of_another_name_of_the_same_environment_suit(agent):
    other = dataclasses.replace(agent.info, env_id="Hopper-v5")
    model = dataclasses.replace(agent, info=other)
    model.policy("m3pc_goal", goals=waypoints.make(STATES, env="hopper"))
