"""A loaded run acts by planning: alone, in batches, with and without a critic."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtm_jax.agents import acting, planner
from mtm_jax.agents import actor as actor_lib
from mtm_jax.agents import agent as agent_lib
from mtm_jax.config import CriticConfig, PlanConfig
from mtm_jax.errors import UserError
from mtm_jax.planning import compiled, forward, worlds
from mtm_jax.training import iql

SMALL = {"candidates": 6}


@pytest.fixture(scope="module")
def agent(tiny_run):
    """A tiny run with an untrained critic."""
    agent = agent_lib.load(tiny_run)
    config = CriticConfig(hidden=(8,), discount=0.9)
    state = iql.init_state(jax.random.key(0), config, 11, 3)
    critic = iql.Critic(config, iql.raw_params(state, config), agent.stats["states"], 0)
    return dataclasses.replace(agent, critic=critic)


def observations(seed, count=2):
    return np.random.default_rng(seed).normal(size=(count, 11)).astype(np.float32)


@pytest.mark.parametrize("method", planner.GUIDANCE)
def test_a_policy_plans_like_the_batched_actor(agent, method):
    plan = planner.plan_config(method, **SMALL)
    actor = acting.make_actor(agent, method, plan=plan)
    memory = actor.start(observations(0, 1))
    actions = actor.decide(memory)
    policy = agent.policy(method, plan=plan)
    np.testing.assert_allclose(
        policy.act(observations(0, 1)[0]), agent.to_environment(actions[0]), rtol=1e-5
    )
    for n in range(1, 7):
        obs, reward = observations(n, 1), np.float32([0.1 * n])
        memory = actor.observe(memory, actions, reward, obs)
        actions = actor.decide(memory)
        found = policy.act(obs[0], float(reward[0]))
        np.testing.assert_allclose(found, agent.to_environment(actions[0]), rtol=1e-4, atol=1e-5)


def test_a_plan_that_something_else_guides_is_refused(agent):
    plan = planner.plan_config("m3pc_m", **SMALL)
    with pytest.raises(UserError, match="m3pc_q is guided by 'critic' and this plan by 'returns'"):
        agent.policy("m3pc_q", plan=plan)


@pytest.mark.slow
def test_a_plan_without_selection_is_near_the_policy_it_draws_from(agent):
    plan = planner.plan_config("m3pc_m", candidates=500, xi=0.0, spread=0.0)
    obs = observations(0, 1)[0]
    planned = agent.policy("m3pc_m", plan=plan).act(obs)
    np.testing.assert_allclose(planned, agent.policy("rcbc").act(obs), atol=1e-4)


def test_a_critic_is_asked_for_its_least_value(agent):
    states, actions = jnp.ones((4, 11)), jnp.zeros((4, 3))
    critic = agent.critic
    values = iql.q_values(critic.params, critic.stats, states, actions)
    found = planner.least_q((critic.params, critic.stats), states, actions)
    np.testing.assert_allclose(found, np.minimum(*values))


def test_a_critic_values_states_whatever_the_actions(agent):
    states, critic = jnp.ones((4, 11)), agent.critic
    asked = critic.params, critic.stats
    found = [planner.state_value(asked, states, jnp.full((4, 3), a)) for a in (0.0, 1.0)]
    np.testing.assert_allclose(found, [iql.v_values(*asked, states)] * 2)


def test_a_pessimist_takes_the_mean_less_the_spread_of_the_ensemble(agent):
    states, actions = jnp.ones((4, 11)), jnp.zeros((4, 3))
    critic = agent.critic.params, agent.critic.stats
    one, other = iql.q_values(*critic, states, actions)
    found = planner.pessimistic_q(0.5)(critic, states, actions)
    expected = (one + other) / 2 - 0.5 * jnp.abs(one - other) / 2
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    plan = planner.plan_config("m3pc_q", pessimism=0.5)
    assert planner.value_of(plan) is planner.pessimistic_q(0.5)  # else it compiles anew


def test_falls_are_expected_by_a_critic_that_knows_them(agent):
    plan = planner.plan_config("m3pc_m", falls="expected", fall_penalty=10.0, **SMALL)
    with pytest.raises(UserError, match="train one with --config.critic.terminals=True"):
        acting.make_actor(agent, "m3pc_m", plan=plan)
    without = dataclasses.replace(agent, critic=None)
    with pytest.raises(UserError, match="this run has no critic"):
        acting.make_actor(without, "m3pc_m", plan=plan)
    control = planner.plan_config("m3pc_0", falls="expected", **SMALL)
    acting.make_actor(without, "m3pc_0", plan=control)
    config = CriticConfig(hidden=(8,), terminals=True)
    state = iql.init_state(jax.random.key(0), config, 11, 3)
    params = iql.raw_params(state, config)
    knowing = dataclasses.replace(agent, critic=agent.critic._replace(params=params))
    acting.make_actor(knowing, "m3pc_m", plan=plan)
    found = planner.end_probability((params, agent.critic.stats), jnp.ones((4, 3, 11)))
    assert found.shape == (4, 3) and (0 < found).all() and (found < 1).all()


def test_a_plan_may_be_computed_in_another_precision(agent):
    plain, half = (
        acting.make_actor(agent, "m3pc_0", plan=planner.plan_config("m3pc_0", **how, **SMALL))
        for how in ({}, {"compute_dtype": "bfloat16"})
    )
    assert half.agent.model.config.compute_dtype == "bfloat16"
    first, second = (actor.decide(actor.start(observations(0))) for actor in (plain, half))
    assert (first != second).any()
    np.testing.assert_allclose(first, second, atol=0.05)


def test_a_plan_has_the_discount_of_the_critic_that_guides_it(agent, monkeypatch):
    def discount(method, **settings):
        plan = planner.plan_config(method, **settings) if settings else None
        acting.make_actor(agent, method, plan=plan)
        return made[-1].discount

    made = []
    monkeypatch.setattr(planner, "compiled_planner", lambda model, plan, *_: made.append(plan))
    assert discount("m3pc_q") == discount("m3pc_q", **SMALL) == discount("m3pc_v") == 0.9
    assert discount("m3pc_q", discount=0.5) == 0.5
    assert discount("m3pc_m", **SMALL) == 0.99


def test_a_seed_explores(agent):
    plan, obs = planner.plan_config("m3pc_m", **SMALL), observations(0, 1)[0]
    drawn = {tuple(agent.policy("m3pc_m", seed=s, plan=plan).act(obs)) for s in range(3)}
    assert len(drawn) == 3


def test_a_plan_guided_by_a_missing_critic_is_refused(agent):
    without = dataclasses.replace(agent, critic=None)
    with pytest.raises(UserError, match="no critic; train one with python -m experiments.critic"):
        without.policy("m3pc_q")


def test_a_world_model_of_another_task_is_refused(agent):
    info = dataclasses.replace(agent.info, env_id="Walker2d-v5")
    other = dataclasses.replace(agent, info=info)
    with pytest.raises(
        UserError, match=f"env_id is Walker2d-v5, the policy's is {agent.info.env_id}"
    ):
        acting.make_actor(agent, "m3pc_m", plan=PlanConfig(**SMALL), world=other)


def test_a_utility_that_is_not_finite_stops_and_is_traced_to_its_cause(agent):
    broken = jax.tree.map(lambda x: x * jnp.nan, agent.critic.params)
    spoiled = dataclasses.replace(agent, critic=agent.critic._replace(params=broken))
    actor = acting.make_actor(spoiled, "m3pc_q", plan=PlanConfig("critic", **SMALL))
    with pytest.raises(UserError) as error:
        actor.decide(actor.start(observations(0)))
    assert "environment 0 at step 0: the utility of candidate 0 of 6 is nan" in str(error.value)
    assert "its value of step 1 of the horizon is nan" in str(error.value)


def test_the_candidate_that_fails_is_named_with_what_its_utility_was_made_of(agent):
    """Candidate 3 of environment 1; the reward of the last step has no part in any utility."""
    numbers = {name: np.zeros((2, 6, 4)) for name in ("rewards", "returns", "values")}
    utilities, states = np.zeros((2, 6)), np.zeros((2, 6, 4, 11))
    utilities[1, 3] = numbers["values"][1, 3, 2] = numbers["rewards"][1, 3, 3] = np.inf
    numbers["values"][0, 3, 1] = np.nan  # of another environment
    plans = forward.Plan(
        action=np.zeros((2, 3)),
        candidates=np.zeros((2, 6, 4, 3)),
        rollout=worlds.Rollout(states, numbers["rewards"], numbers["returns"]),
        values=numbers["values"],
        utilities=utilities,
        weights=utilities,
        length=np.full(2, 4),
    )
    failing = compiled.Planner(
        lambda *_: (plans.action, np.array([True, False])), lambda *_, **__: plans
    )
    contexts = actor_lib.begin(observations(0), action_dim=3, window=8)
    key, target = jax.random.key(0), jnp.zeros(())
    decide, _ = planner.bind(failing, PlanConfig(**SMALL), None, target, key)
    sentence = (
        "environment 1 at step 0: the utility of candidate 3 of 6 is inf, because its value of "
        "step 3 of the horizon is inf"
    )
    with pytest.raises(UserError, match=sentence):
        decide(actor_lib.Memory(contexts, 0))


def test_a_plan_is_drawn_and_explained_with_the_key_of_its_decision(agent):
    drawn = []

    def act(weights, contexts, target, key, **_):
        drawn.append(jax.random.key_data(key).tolist())
        return np.zeros((2, 3)), np.ones(2, bool)

    stub, contexts = (
        compiled.Planner(act, act),
        actor_lib.begin(observations(0), action_dim=3, window=8),
    )
    key = jax.random.key(5)
    decide, explain = planner.bind(stub, PlanConfig(**SMALL), None, jnp.zeros(()), key)
    for decisions in (0, 7):
        for ask in (decide, explain):
            ask(actor_lib.Memory(contexts, decisions))
    expected = [jax.random.key_data(jax.random.fold_in(key, n)).tolist() for n in (0, 0, 7, 7)]
    assert drawn == expected


@pytest.mark.parametrize(
    ("method", "settings", "sentence"),
    [
        ("rcbc", {}, "'rcbc' does not plan; choose m3pc_0 or m3pc_m or m3pc_v or m3pc_q"),
        ("m3pc_m", {"samples": 3}, "a plan has no samples; its settings are candidates"),
        ("m3pc_m", {"candidates": 0}, "candidates is 0"),
    ],
)
def test_senseless_plans_are_refused(method, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        planner.plan_config(method, **settings)


@pytest.mark.parametrize("obs", [np.zeros(4), np.full(11, np.nan)])
def test_a_planning_policy_refuses_what_it_cannot_read(agent, obs):
    with pytest.raises(UserError, match="observation"):
        agent.policy("m3pc_m", plan=planner.plan_config("m3pc_m", **SMALL)).act(obs)
