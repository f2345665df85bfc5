"""A loaded run acts, alone and in a batch, and says what it cannot read."""

import dataclasses
import functools
import json

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtm_jax.agents import acting, model_files, pretrained
from mtm_jax.agents import agent as agent_lib
from mtm_jax.config import PlanConfig, PromptConfig
from mtm_jax.errors import UserError
from mtm_jax.io import checkpoint
from mtm_jax.planning import context as context_lib
from mtm_jax.planning import roles

RNG = np.random.default_rng(0)
OBS = RNG.normal(size=(12, 3, 11)).astype(np.float32)  # steps, environments, dimensions
REWARDS = RNG.normal(size=(12, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def agent(tiny_run):
    return agent_lib.load(tiny_run)


@pytest.fixture(scope="module")
def shared_policy(agent):
    return agent.policy()


@pytest.fixture
def policy(shared_policy):
    shared_policy.reset()
    return shared_policy


def test_a_loaded_policy_acts_in_its_environment(policy):
    env = gymnasium.make("Hopper-v5")
    obs, _ = env.reset(seed=0)
    reward, actions = None, []
    for _ in range(8):
        actions.append(policy.act(obs, reward))
        assert env.action_space.contains(actions[-1])
        obs, reward, *_ = env.step(actions[-1])
    assert np.ptp(actions, axis=0).min() > 0.0


def play(policy, environment=0, steps=8):
    """Actions on fixed observations, [steps, A]."""
    policy.reset()
    actions = [policy.act(OBS[0, environment])]
    for t in range(1, steps):
        actions.append(policy.act(OBS[t, environment], REWARDS[t, environment]))
    return np.stack(actions)


def play_batch(actor, obs, rewards, steps=8):
    """The same of an actor, [steps, E, A]."""
    memory = actor.start(obs[0])
    actions = [actor.decide(memory)]
    for t in range(1, steps):
        memory = actor.observe(memory, actions[-1], rewards[t], obs[t])
        actions.append(actor.decide(memory))
    return np.stack(actions)


def test_reset_forgets_the_episode(policy):
    first = play(policy)
    np.testing.assert_array_equal(play(policy), first)
    assert (play(policy, environment=1) != first).any()


def test_the_batched_actor_equals_the_policy_step_by_step(agent, policy):
    batched = play_batch(acting.make_actor(agent, "rcbc"), OBS, REWARDS)
    for e in range(3):
        np.testing.assert_allclose(batched[:, e], play(policy, e), rtol=1e-4, atol=1e-5)


def test_models_that_act_together_act_as_each_does_alone(agent):
    other = dataclasses.replace(agent, params=jax.tree.map(lambda x: 0.5 * x, agent.params))
    obs, rewards = np.concatenate([OBS, OBS[:, ::-1]], 1), np.concatenate([REWARDS] * 2, 1)
    found = play_batch(acting.make_group((agent, other)), obs, rewards)
    for k, one in enumerate((agent, other)):
        rows = slice(3 * k, 3 * k + 3)
        alone = play_batch(acting.make_actor(one), obs[:, rows], rewards[:, rows])
        np.testing.assert_array_equal(found[:, rows], alone)
    assert not np.allclose(found[:, :3], found[:, :2:-1], atol=1e-3)


def test_models_of_other_data_do_not_act_together(agent):
    other = dataclasses.replace(agent, info=dataclasses.replace(agent.info, name="other"))
    with pytest.raises(UserError, match="must be of one data set.*name='other'"):
        acting.make_group((agent, other))


def test_a_target_fraction_asks_for_another_return(agent, policy):
    best, mean = agent.returns.best, agent.returns.mean
    assert agent.target_return(1.0) == best
    assert agent.target_return(0.0) == pytest.approx(mean)
    assert agent.target_return(0.5) == pytest.approx(0.5 * (best + mean))
    assert (play(agent.policy(target_fraction=-9.0), steps=2) != play(policy, steps=2)).any()


def test_a_larger_fraction_asks_for_more_whatever_the_sign_of_the_returns(agent):
    negative = dataclasses.replace(agent, returns=pretrained.ReturnSummary(best=-50.0, mean=-200.0))
    asked = [negative.target_return(fraction) for fraction in (0.0, 0.5, 1.0, 2.0)]
    assert asked == [-200.0, -125.0, -50.0, 100.0]


@pytest.mark.parametrize("fraction", [np.nan, np.inf, -np.inf, "1.0", None, np.ones(2)])
def test_a_target_that_is_no_finite_number_is_refused(agent, fraction):
    asks = [lambda f, m=m: agent.policy(m, target_fraction=f) for m in acting.METHODS]
    for ask in (*asks, agent.target_return):
        with pytest.raises(UserError, match="target_fraction is .*; give a finite number"):
            ask(fraction)


def test_behaviour_cloning_has_no_target(agent):
    low, high = (play(agent.policy("bc", target_fraction=f), steps=2) for f in (-9.0, 1.0))
    np.testing.assert_array_equal(low, high)


def test_a_seed_draws_actions(agent, policy):
    first, again, other = (play(agent.policy(seed=s), steps=3) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).all() and (first != play(policy, steps=3)).all()
    assert (np.diff(first, axis=0) != 0).all()


def test_every_decision_of_a_seed_has_a_key_of_its_own_also_in_the_next_episode(agent):
    """Which draws a seed means: results of a policy with a seed can be reproduced."""
    policy, target = agent.policy(seed=3), agent.target_token(1.0)
    context = context_lib.begin(jnp.asarray(OBS[0, 0]), 3, agent.model.config.window)

    @jax.jit
    def act(params, key):
        return roles.act(agent.model, params, agent.stats, context, target, key=key)

    for decision in range(2):
        policy.reset()
        key = jax.random.fold_in(jax.random.key(3), decision)
        expected = agent.to_environment(act(agent.params, key))
        np.testing.assert_allclose(policy.act(OBS[0, 0]), expected, rtol=1e-4, atol=1e-5)


def test_environments_draw_independently(agent):
    actor = acting.make_actor(agent, seed=3, explore=True)
    drawn = actor.decide(actor.start(np.repeat(OBS[0, :1], 3, axis=0)))
    assert len(np.unique(drawn, axis=0)) == 3


def test_policies_of_one_agent_compile_once(agent, monkeypatch):
    applied, extended, extend = [], [], context_lib.extend

    def counting(*args, **kwargs):
        applied.append(None)
        return agent.model.apply(*args, **kwargs)

    def counting_extend(*args, **kwargs):
        extended.append(None)
        return extend(*args, **kwargs)

    monkeypatch.setattr(context_lib, "extend", counting_extend)
    model = agent.model._replace(apply=counting)
    fresh = dataclasses.replace(agent, model=model, history=1)  # which no other test has
    first, second = (play(fresh.policy(target_fraction=f), steps=3) for f in (1.0, -9.0))
    assert (first != second).any()
    assert (len(applied), len(extended)) == (1, 1)


def test_a_seed_without_a_distribution_is_refused(agent):
    specs = tuple(dataclasses.replace(m, head="continuous") for m in agent.model.config.modalities)
    config = dataclasses.replace(agent.model.config, modalities=specs)
    plain = dataclasses.replace(agent, model=agent.model._replace(config=config))
    with pytest.raises(UserError, match="head 'continuous'.*leave the seed out"):
        plain.policy(seed=0)
    plain.policy()


def test_samples_of_a_prompt_are_those_of_exploration(agent):
    prompt = PromptConfig(action="sample")
    explored, drawn = (
        acting.make_actor(agent, seed=3, **how) for how in ({"explore": True}, {"prompt": prompt})
    )
    first, second = (play_batch(actor, OBS, REWARDS, steps=3) for actor in (explored, drawn))
    np.testing.assert_array_equal(first, second)


def test_a_model_acts_in_another_precision_and_is_compiled_for_it_once(agent):
    plain, half, again = (
        acting.make_actor(agent, prompt=PromptConfig(compute_dtype=dtype))
        for dtype in ("float32", "bfloat16", "bfloat16")
    )
    assert plain.agent is agent and half.agent.model is again.agent.model
    first, second = (actor.decide(actor.start(OBS[0])) for actor in (plain, half))
    assert second.dtype == np.float32 and (first != second).any()
    np.testing.assert_allclose(first, second, atol=0.05)


@pytest.mark.parametrize(
    ("method", "head", "prompt", "says"),
    [
        ("bc", "tanh_normal", {"guidance": 2.0}, "its prompt has no guidance, and it is 2.0"),
        ("bc", "tanh_normal", {"returns_shown": "present"}, "no returns_shown"),
        ("rcbc", "continuous", {"guidance": 2.0}, "nothing to guide before a tanh"),
        ("rcbc", "continuous", {"action": "mean"}, "it has no mean; use action='mode'"),
        ("rcbc", "continuous", {"action": "sample"}, "nothing to draw from"),
        ("m3pc_m", "tanh_normal", {}, "m3pc_m plans, and options of acting by a prompt"),
    ],
)
def test_prompts_that_cannot_be_followed_are_refused(agent, method, head, prompt, says):
    specs = tuple(dataclasses.replace(m, head=head) for m in agent.model.config.modalities)
    config = dataclasses.replace(agent.model.config, modalities=specs)
    model = dataclasses.replace(agent, model=agent.model._replace(config=config))
    with pytest.raises(UserError, match=says):
        model.policy(method, prompt=PromptConfig(**prompt))


@pytest.mark.parametrize(
    ("obs", "reward", "says"),
    [
        (np.zeros(10), 0.0, r"shape \(10,\), Hopper-v4 has \(11,\)"),
        (np.zeros((1, 11)), 0.0, r"the observation has shape \(1, 11\)"),
        (np.float32(0.0), 0.0, r"the observation has shape \(\)"),
        (np.full(11, np.nan), 0.0, "not finite: dimension 0 is nan"),
        (np.where(np.arange(11) == 4, np.inf, 0.0), 0.0, "dimension 4 is inf"),
        ((np.zeros(11), {}), 0.0, r"a tuple that ends with a dictionary.*obs, info = env.reset"),
        ((np.zeros(11), 1.0, False, False, {}), 0.0, "a tuple that ends with a dictionary"),
        ({"observation": np.zeros(11)}, 0.0, "a dictionary with the keys observation"),
        (["a"] * 11, 0.0, "the observation: expected real numbers, got list of dtype <U1"),
        (np.zeros(11, complex), 0.0, "dtype complex128"),
        (np.full(11, None), 0.0, "dtype object"),
        ([[0.0] * 5, [0.0] * 6], 0.0, "cannot be read as an array"),
        (np.zeros(11), None, "no reward after the first step"),
        (np.zeros(11), np.nan, "reward is nan"),
        (np.zeros(11), np.ones(2), r"reward has shape \(2,\); pass the one number"),
        (np.zeros(11), np.ones((0,)), r"reward has shape \(0,\)"),
        (np.zeros(11), np.ones((1, 1)), r"reward has shape \(1, 1\)"),
        (np.zeros(11), 1e300, "the reward is inf; it must be finite"),
        (np.zeros(11), 1j, "the reward: expected real numbers, got complex"),
        (np.zeros(11), "1.0", "the reward: expected real numbers, got str"),
        (np.zeros(11), {"reward": 1.0}, "the reward is a dictionary"),
    ],
)
def test_what_cannot_be_read_is_refused_and_forgotten(policy, obs, reward, says):
    expected = play(policy, steps=2)
    policy.reset()
    policy.act(OBS[0, 0])
    with pytest.raises(UserError, match=says):
        policy.act(obs, reward)
    np.testing.assert_array_equal(policy.act(OBS[1, 0], REWARDS[1, 0]), expected[1])


def test_a_reward_may_come_in_an_array_of_one(policy):
    expected = play(policy, steps=2)
    policy.reset()
    policy.act(OBS[0, 0])
    found = policy.act(OBS[1, 0], REWARDS[1, :1])
    np.testing.assert_array_equal(found, expected[1])


@pytest.mark.parametrize("method", ["rcbc", "m3pc_m"])
def test_observations_of_a_batch_are_read_before_anything_is_decided(agent, method):
    actor, broken = acting.make_actor(agent, method), OBS[1].copy()
    broken[1, 4] = np.nan
    sentence = "observation of environment 1 is not finite: dimension 4 is nan"
    memory = actor.start(OBS[0])
    with pytest.raises(UserError, match=sentence):
        actor.start(broken)
    with pytest.raises(UserError, match=sentence):
        actor.observe(memory, np.zeros((3, 3)), REWARDS[1], broken)
    with pytest.raises(UserError, match="the reward of environment 2 is nan"):
        actor.observe(memory, np.zeros((3, 3)), np.float32([0.0, 0.0, np.nan]), OBS[1])
    for shape in ((2, 4), (11,), (2, 1, 11)):
        with pytest.raises(UserError, match="of environment 0 has shape .*, Hopper-v. has .11,."):
            actor.start(np.zeros(shape, np.float32))


def test_a_method_that_does_not_plan_takes_no_plan(agent):
    with pytest.raises(UserError, match="rcbc does not plan, and a plan was given"):
        agent.policy("rcbc", plan=PlanConfig())
    with pytest.raises(UserError, match="bc does not plan, and a world model was given"):
        acting.make_actor(agent, "bc", world=agent)


def test_a_second_episode_draws_anew(agent):
    policy = agent.policy(seed=0)
    first, second = play(policy, steps=2), play(policy, steps=2)
    assert (first != second).all()


def test_a_reward_before_the_first_action_is_refused(policy):
    with pytest.raises(UserError, match="got a reward in the first step"):
        policy.act(OBS[0, 0], 1.0)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"method": "fd"},
            "'fd' is not a method of acting; choose one of bc, rcbc, m3pc_0, m3pc_m",
        ),
        ({"method": ["bc"]}, r"\['bc'\] is not a method"),
        ({"seed": 0.5}, "the seed is 0.5; give a whole number"),
        ({"method": "m3pc_m", "plan": {"candidates": 3}}, "the plan is a dict; give a mtm_jax.Pl"),
        ({"prompt": {"guidance": 2.0}}, "the prompt is a dict; give a mtm_jax.PromptConfig"),
    ],
)
def test_settings_of_another_kind_are_refused(agent, settings, says):
    for make in (agent.policy, functools.partial(acting.make_actor, agent)):
        with pytest.raises(UserError, match=says):
            make(**settings)


def test_actions_are_in_the_environments_units(agent):
    info = dataclasses.replace(agent.info, action_low=(-2.0,) * 3, action_high=(6.0,) * 3)
    scaled = dataclasses.replace(agent, info=info)
    unit = np.float32([[-1.0, 0.0, 1.0]])
    np.testing.assert_allclose(scaled.to_environment(unit), [[-2.0, 2.0, 6.0]])
    states = OBS[:4, 0]
    plain, wide = agent.inverse_dynamics(states), scaled.inverse_dynamics(states)
    np.testing.assert_allclose(wide, 4.0 * plain + 2.0, rtol=1e-5, atol=1e-5)
    imagined = agent.imagine(OBS[0, 0], plain)
    same = scaled.imagine(OBS[0, 0], wide)
    np.testing.assert_allclose(imagined.next_states, same.next_states, rtol=1e-3, atol=1e-4)


def test_imagination_returns_a_row_per_action(agent):
    actions = RNG.uniform(-1, 1, (3, 3))
    imagined = agent.imagine(OBS[0, 0], actions)
    assert imagined.next_states.shape == (3, 11)
    assert imagined.rewards.shape == imagined.return_tokens.shape == (3,)
    actions[2] = -actions[2]
    other = agent.imagine(OBS[0, 0], actions)
    assert (other.next_states[2] != imagined.next_states[2]).any()


@pytest.mark.parametrize(
    ("actions", "says"),
    [
        (np.zeros((4, 2)), r"\(4, 2\); pass one row of 3"),
        (np.zeros(3), r"shape \(3,\)"),
        (np.zeros((0, 3)), "at least one step"),
        (np.full((1, 3), np.nan), "not finite: step 0, dimension 0 is nan"),
        (
            np.zeros((1, 3), complex),
            "the actions: expected real numbers, got ndarray of dtype complex128",
        ),
    ],
)
def test_imagination_refuses_actions_of_another_kind(agent, actions, says):
    with pytest.raises(UserError, match=says):
        agent.imagine(OBS[0, 0], actions)


def test_inverse_dynamics_uses_its_own_actions_as_history(agent):
    states = OBS[:5, 0]
    found = agent.inverse_dynamics(states)
    assert found.shape == (4, 3)
    window = agent.model.config.window
    padded = jnp.asarray(np.concatenate([states, np.repeat(states[-1:], window - 5, 0)]))
    past = jnp.zeros((window, 3)).at[:3].set(found[:3])
    last = roles.inverse_dynamics(agent.model, agent.params, agent.stats, padded, past, 3)
    np.testing.assert_allclose(found[3], last, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [1, 9])
def test_inverse_dynamics_needs_states_that_fit_the_window(agent, count):
    with pytest.raises(UserError, match=f"got {count} states; give 2 to 8"):
        agent.inverse_dynamics(OBS[:count, 0])


def test_inverse_dynamics_refuses_states_of_another_kind(agent):
    with pytest.raises(UserError, match=r"the observation of state 0 has shape \(10,\)"):
        agent.inverse_dynamics(OBS[:3, 0, :10])
    broken = OBS[:3, 0].copy()
    broken[2, 4] = np.nan
    with pytest.raises(UserError, match="the observation of state 2 is not finite: dimension 4"):
        agent.inverse_dynamics(broken)
    for wrong in (3.0, {"states": OBS[:3, 0]}, ["a", "b"]):
        with pytest.raises(UserError, match="the observation"):
            agent.inverse_dynamics(wrong)


def test_the_last_checkpoint_is_loaded(agent, tiny_run):
    saved = checkpoint.Checkpoints(tiny_run).restore_model(30)["average"]
    jax.tree.map(np.testing.assert_array_equal, agent.params, saved)
    assert (agent.step, agent_lib.load(tiny_run, step=20).step) == (30, 20)
    assert agent.info.env_id == "Hopper-v4"
    assert agent.history == 4
    assert 0.0 < agent.returns.mean < agent.returns.best


def test_the_description_survives_json(agent):
    described = json.loads(json.dumps(pretrained.describe(agent)))
    assert model_files.config_from_dict(described["model_config"]) == agent.model.config
    assert pretrained.info_from_json(described["info"]) == agent.info


def test_missing_runs_and_checkpoints_are_refused(tiny_run, tmp_path):
    with pytest.raises(UserError, match="no run in .*nowhere"):
        agent_lib.load(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(
        UserError, match=r"a checkpoint of step 7; it has those of steps \[20, 30\]"
    ):
        agent_lib.load(tiny_run, step=7)
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    with pytest.raises(UserError, match="does not have a checkpoint"):
        agent_lib.load(tmp_path / "empty")
