"""Plans of forward M3PC: near the optimum of a known world, and the same for any batch."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_models import noisy_params

from mtm_jax import distributions, masks, tokens
from mtm_jax.config import ModelConfig, PlanConfig
from mtm_jax.errors import UserError
from mtm_jax.models.trajectory_model import make_model
from mtm_jax.planning import (
    compiled,
    context,
    forward,
    options,
    pruned_world,
    roles,
    worlds,
)
from mtm_jax.types import ModalitySpec

LIMIT, WINDOW, S, A = 50, 8, 3, 2
B, COST, GAMMA = 0.5, 0.1, 0.9  # of the linear world


# --- a world with a known optimum ---


def riccati():
    """P and K of V(s) = -P s^2 and a = -K s, for s' = s + B a and r = -(s'^2 + COST a^2)."""
    p = 0.0
    for _ in range(200):
        gain = B * (1 + GAMMA * p) / (B**2 * (1 + GAMMA * p) + COST)
        p = (1 + GAMMA * p) * (1 - B * gain) ** 2 + COST * gain**2
    return p, gain


def linear_world(horizon):
    def policy(ctx, target):
        return distributions.TanhNormal(jnp.zeros((horizon, 1)), jnp.zeros((horizon, 1)))

    def rollout(ctx, actions):
        later = ctx.states[ctx.slot] + B * jnp.cumsum(actions, axis=1)  # [N, h, 1]
        states = later - B * actions
        rewards = -(later**2 + COST * actions**2)[..., 0]
        return worlds.Rollout(states, rewards, jnp.zeros(rewards.shape))

    return worlds.World(policy, rollout)


def optimal_q(states, actions):
    p, _ = riccati()
    later = states + B * actions
    return -((1 + GAMMA * p) * later**2 + COST * actions**2)[..., 0]


def plan_of(config, world, critic_fn, ctx, target, key, explore=False):
    """The plan of one environment without compilation, over the whole horizon."""
    steps = options.make_steps(config, LIMIT, critic_fn, explore)
    return forward.plan(
        *(key, ctx, target),
        world=world,
        value_fn=functools.partial(steps.value_fn, None),
        score_fn=steps.score_fn,
        weigh_fn=steps.weigh_fn,
        choose_fn=steps.choose_fn,
        num_candidates=config.candidates,
        length=jnp.int32(config.horizon),
        spread=config.spread,
    )


def linear_plan(config, key, explore=False):
    def value(_, states, actions):
        return optimal_q(states, actions)

    ctx = context.begin(jnp.array([0.3]), 1, config.history + config.horizon)
    return plan_of(config, linear_world(config.horizon), value, ctx, 0.0, key, explore)


def linear_plans(config, count=64):
    keys = jax.random.split(jax.random.key(1), count)
    return jax.jit(jax.vmap(lambda key: linear_plan(config, key)))(keys)


@pytest.mark.parametrize("horizon", [1, 3])
def test_the_choice_nears_the_optimum_as_candidates_grow(horizon):
    config = PlanConfig("critic", horizon=horizon, discount=GAMMA, xi=1e5, xi_unit="raw")
    optimum, errors = -0.3 * riccati()[1], []
    for candidates in (4, 64, 1024):
        plans = linear_plans(dataclasses.replace(config, candidates=candidates))
        errors.append(float(jnp.abs(plans.action[:, 0] - optimum).mean()))
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    # N points in h dimensions are N^(-1/h) apart.
    assert errors[2] < 4 * 1024**-1.0 if horizon == 1 else errors[2] < 1024 ** (-1 / 3)


def test_utility_is_value_where_values_are_exact_and_actions_optimal():
    """Under lambda = 1 every candidate earns its rewards and then the value of what is left."""
    config = PlanConfig("critic", 16, horizon=3, discount=GAMMA, lambda_=1.0)
    plans = linear_plans(config, count=2)
    actions, states = plans.candidates[..., 0], plans.rollout.states[..., 0]
    rewards = plans.rollout.rewards
    last = optimal_q(states[..., 2:, None], actions[..., 2:, None])[..., 0]
    expected = rewards[..., 0] + GAMMA * rewards[..., 1] + GAMMA**2 * last
    np.testing.assert_allclose(plans.utilities, expected, rtol=1e-5)


def test_more_selective_plans_have_a_higher_expected_utility():
    base = PlanConfig("critic", 64, horizon=2, discount=GAMMA)
    expected = []
    for xi in (0.0, 1.0, 5.0):
        plans = linear_plans(dataclasses.replace(base, xi=xi), count=16)
        expected.append(float((plans.weights * plans.utilities).sum(-1).mean()))
    assert expected == sorted(expected)
    assert expected[0] < expected[2] - 0.01


def test_exploring_draws_one_of_the_candidates():
    config = PlanConfig("critic", 8, horizon=2, discount=GAMMA)
    drawn, expected = (
        jax.jit(functools.partial(linear_plan, config, explore=explore))(jax.random.key(0))
        for explore in (True, False)
    )
    assert drawn.action[0] in drawn.candidates[:, 0, 0]
    np.testing.assert_allclose(
        expected.action, expected.weights @ expected.candidates[:, 0], rtol=1e-6
    )


# --- plans of a model ---


@pytest.fixture(scope="module")
def pretrained():
    """A small random model with statistics that are no identities."""
    specs = (
        ModalitySpec("states", S),
        ModalitySpec("returns", 1),
        ModalitySpec("actions", A, head="tanh_normal"),
        ModalitySpec("rewards", 1),
    )
    config = ModelConfig(specs, window=WINDOW, width=16, heads=2, encoder_layers=1, dropout=0.0)
    model = make_model(config)
    ranges = {m.name: jnp.arange(1.0, m.features + 1) for m in specs}
    stats = {m: tokens.Stats(x, 0.5 * x, -x, x) for m, x in ranges.items()}
    # Utilities that differ by little more than round-off would be weighted by it.
    return model, noisy_params(model, seed=1), stats


def contexts_after(steps, history, count=2):
    rng = np.random.default_rng(3)
    obs = rng.normal(size=(steps + 1, count, S)).astype(np.float32)
    ctx = jax.vmap(lambda o: context.begin(o, A, WINDOW))(obs[0])
    for n in range(steps):
        action = rng.uniform(-0.9, 0.9, (count, A)).astype(np.float32)
        reward = rng.normal(size=count).astype(np.float32)
        ctx = extend(ctx, action, reward, obs[n + 1], history)
    return ctx


@functools.partial(jax.jit, static_argnames="history")
def extend(ctx, action, reward, obs, history):
    return jax.vmap(lambda *x: context.extend(*x, history))(ctx, action, reward, obs)


window_values = jax.jit(context.window_values)


def critic_value(critic, states, actions):
    return critic * states.sum(-1) - (actions**2).sum(-1)


CONFIGS = {
    "returns": PlanConfig("returns", 7, readout="fd"),
    "critic": PlanConfig("critic", 7, discount=1.0),
    "rp": PlanConfig("returns", 7),
    "released": PlanConfig(
        "returns", 7, readout="fd", convention="released", xi=0.01, xi_unit="raw"
    ),
    "long": PlanConfig("critic", 5, history=0, horizon=8, discount=GAMMA),
    "guided_rp": PlanConfig("critic", 5, discount=GAMMA, readout="rp"),
    "at_once": PlanConfig("critic", 5, history=2, horizon=1, discount=GAMMA),
    "short": PlanConfig("returns", 5, history=2, horizon=1),
    "value": PlanConfig("value", 7, discount=GAMMA),
    "none": PlanConfig("none", 7),
}


def ways(*fast):
    """The ways to plan that differ most, for one test; the others are for the slow tests."""
    return [n if n in fast else pytest.param(n, marks=pytest.mark.slow) for n in CONFIGS]


@pytest.fixture(scope="module")
def planners(pretrained):
    """Planners by the names of their settings, compiled once for all tests."""

    @functools.cache
    def make(name, pruned=True):
        config = dataclasses.replace(CONFIGS[name], pruned=pruned)
        return compiled.make_planner(pretrained[0], config, LIMIT, critic_value)

    return make


@pytest.fixture(scope="module")
def show(pretrained):
    """What whole passes predict, in raw units."""
    model, params, stats = pretrained

    def predict(values, visible):
        return roles.decode(model, stats, roles.show(model, params, stats, values, visible))

    compiled = jax.jit(predict)
    return lambda values, visible: jax.device_get(compiled(values, visible))


@pytest.mark.parametrize("name", ways("critic", "rp", "released"))
@pytest.mark.parametrize("steps", [0, 2, 6])
def test_the_candidate_with_weight_is_rolled_out_as_its_prompt_says(
    pretrained, planners, show, name, steps
):
    """Every number of a plan, once more by whole passes of one candidate after the other."""
    config = CONFIGS[name]
    _, params, stats = pretrained
    ctxs = contexts_after(steps, config.history)
    planner = planners(name)
    target, critic = jnp.float32(1.5), jnp.float32(2.0)
    args = (compiled.Weights(params, stats, critic), ctxs, target, jax.random.key(5))
    plans = planner.explain(*args, horizon=config.history + config.horizon)
    ctx, plan = (jax.tree.map(lambda x: np.asarray(x[1]), jax.device_get(t)) for t in (ctxs, plans))
    slot = int(ctx.slot)
    length = int(plan.length)
    assert length == config.history + config.horizon - slot
    for n in (0, config.candidates - 1):
        values = {m: np.array(x) for m, x in window_values(ctx, 0.0).items()}
        values["actions"][slot : slot + length] = plan.candidates[n, :length]
        visible = masks.prompt("fd", slot, WINDOW)
        visible["actions"] = np.arange(WINDOW) < slot + length
        fd = show(values, visible)
        if config.readout == "rp":
            values["states"][slot + 1 :] = fd["states"][slot + 1 :]
            visible["states"] = np.arange(WINDOW) < slot + length
            rp = show(values, visible)
            fd = fd | {m: rp[m] for m in ("rewards", "returns")}
        states = np.concatenate([ctx.states[slot][None], fd["states"][slot + 1 : slot + length]])
        np.testing.assert_allclose(plan.rollout.states[n, :length], states, rtol=1e-4, atol=1e-4)
        rewards = fd["rewards"][slot : slot + length, 0]
        np.testing.assert_allclose(plan.rollout.rewards[n, :length], rewards, rtol=1e-4, atol=1e-4)
        tokens_ = fd["returns"][slot : slot + length, 0]
        if config.guidance == "none":
            worth = np.zeros(length)
        elif config.guidance in ("critic", "value"):
            worth = critic_value(2.0, states, plan.candidates[n, :length])
        elif config.convention == "released":
            worth = LIMIT * tokens_
        else:
            worth = tokens_ * (LIMIT - steps - np.arange(length))
        np.testing.assert_allclose(plan.values[n, :length], worth, rtol=1e-4, atol=1e-3)
        total = sum(
            (1 - config.lambda_ if k < length - 1 else 1.0)
            * config.lambda_**k
            * (
                sum(config.discount**j * rewards[j] for j in range(k))
                + config.discount**k * worth[k]
            )
            for k in range(length)
        )
        total *= config.discount if config.convention == "released" else 1.0
        np.testing.assert_allclose(plan.utilities[n], total, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(plan.action, plan.weights @ plan.candidates[:, 0], rtol=1e-5)


@pytest.mark.parametrize("name", ways("critic", "rp"))
@pytest.mark.parametrize("steps", [0, 1, 3, 4, 9])
def test_pruned_plans_are_the_plans_of_whole_passes(pretrained, planners, name, steps):
    config = CONFIGS[name]
    _, params, stats = pretrained
    ctxs = contexts_after(steps, config.history)
    args = (
        compiled.Weights(params, stats, jnp.float32(2.0)),
        ctxs,
        jnp.float32(1.5),
        jax.random.key(5),
    )
    plans = [
        planners(name, pruned).explain(*args, horizon=config.history + config.horizon)
        for pruned in (True, False)
    ]
    counts = np.arange(plans[0].values.shape[2]) < np.asarray(plans[0].length)[:, None, None]
    for found, expected in zip(*map(jax.tree.leaves, plans), strict=True):
        found, expected = np.asarray(found), np.asarray(expected)
        if found.ndim >= 3 and found.shape[2] == counts.shape[2]:  # what does not count may differ
            keep = counts.reshape(*counts.shape, *[1] * (found.ndim - 3))
            found, expected = np.where(keep, found, 0.0), np.where(keep, expected, 0.0)
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)


def test_candidates_are_drawn_from_the_return_conditioned_policy(pretrained):
    model, params, stats = pretrained
    config = PlanConfig("returns")
    ctxs = contexts_after(6, 4, count=1)
    ctx = jax.tree.map(lambda x: x[0], ctxs)

    @jax.jit
    def ask(params, ctx, target):
        world = worlds.plain_world(model, params, stats, config, 4)
        values = context.window_values(ctx, target)
        outputs = roles.predict(model, params, stats, values, "rcbc", ctx.slot)
        return world.policy(ctx, target), outputs

    dist, outputs = ask(params, ctx, jnp.float32(1.5))
    np.testing.assert_allclose(dist.loc, outputs["actions"].loc[4:], rtol=1e-5)
    drawn = forward.propose(jax.random.key(0), dist, 4000, 1.0)
    pre_tanh = np.arctanh(np.clip(drawn, -0.999999, 0.999999))
    np.testing.assert_allclose(
        pre_tanh.mean(0), dist.loc, atol=0.1 * float(jnp.exp(dist.log_std).max())
    )
    narrow = forward.propose(jax.random.key(0), dist, 4000, 0.0)
    np.testing.assert_allclose(
        narrow, jnp.broadcast_to(jnp.tanh(dist.loc), narrow.shape), rtol=1e-5
    )


@pytest.mark.parametrize("name", ways("critic", "rp"))
@pytest.mark.parametrize("steps", [1, 6])
def test_a_decision_acts_on_its_plan(pretrained, planners, name, steps):
    """The short program of a full window and the long one of the first steps agree with plans."""
    _, params, stats = pretrained
    config = CONFIGS[name]
    planner = planners(name)
    args = (
        compiled.Weights(params, stats, jnp.float32(2.0)),
        contexts_after(steps, config.history),
        jnp.float32(1.5),
        jax.random.key(5),
    )
    horizon = config.horizon + (0 if steps >= config.history else config.history)
    plans = planner.explain(*args, horizon=horizon)
    actions, sound = planner.act(*args)
    np.testing.assert_allclose(actions, plans.action, rtol=1e-5, atol=1e-6)
    assert sound.tolist() == [True, True]


@pytest.mark.parametrize("left", [0, 1, 2, 4, 40])
def test_no_reward_after_the_time_limit_counts(pretrained, planners, left):
    _, params, stats = pretrained
    config = CONFIGS["critic"]
    weights = compiled.Weights(params, stats, jnp.float32(2.0))
    ctxs = contexts_after(6, 4)
    ctxs = ctxs.replace(t=jnp.full_like(ctxs.t, LIMIT - left))
    args = (weights, ctxs, jnp.float32(1.5), jax.random.key(5))
    plans = planners("critic").explain(*args, horizon=config.history + config.horizon)
    length = min(max(left, 1), config.horizon)
    assert plans.length.tolist() == [length, length]
    rewards, values = (x[..., :length] for x in (plans.rollout.rewards, plans.values))
    worth = values[..., -1]
    for k in range(length - 1)[::-1]:
        worth = (1 - config.lambda_) * values[..., k] + config.lambda_ * (rewards[..., k] + worth)
    np.testing.assert_allclose(plans.utilities, worth, rtol=1e-4, atol=1e-4)


def test_the_released_planner_scores_beyond_the_time_limit():
    ctx = jax.tree.map(lambda x: x[0], contexts_after(6, 4, 1))
    late = ctx.replace(t=ctx.t + LIMIT)
    for name, length in (("released", 4), ("returns", 1)):
        steps = options.make_steps(CONFIGS[name], LIMIT, None, explore=False)
        assert steps.length_fn(late, 4) == length


def test_one_utility_that_is_not_finite_makes_a_decision_unsound(pretrained):
    model, params, stats = pretrained
    config = PlanConfig("critic", 7, history=0, horizon=2, xi_unit="raw", discount=GAMMA)

    def value(critic, states, actions):
        values = critic_value(1.0, states, actions)
        return jnp.where(jnp.arange(7)[:, None] == 3, -jnp.inf, values)

    planner = compiled.make_planner(model, config, LIMIT, value)
    args = (
        compiled.Weights(params, stats),
        contexts_after(6, 0),
        jnp.float32(1.5),
        jax.random.key(5),
    )
    assert planner.act(*args)[1].tolist() == [False, False]


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("returns", [{"rewards": 3, "returns": 4}, {"rewards": 7, "returns": 8}]),
        ("critic", [{"rewards": 3, "states": 3}, {"rewards": 7, "states": 7}]),
        ("short", [{"returns": 1}, {"states": 2}, {"rewards": 2, "returns": 3}]),
        ("at_once", [{"rewards": 2, "states": 2}]),
    ],
)
def test_a_decision_asks_for_what_it_is_scored_by(pretrained, name, asked):
    model, params, stats = pretrained
    config, found = CONFIGS[name], []

    def query(params, shared, own, questions):
        if own:
            found.append({name: len(slots) for name, slots in questions.items()})
        return model.query(params, shared, own, questions)

    planner = compiled.make_planner(model._replace(query=query), config, LIMIT, critic_value)
    args = (contexts_after(6, config.history), jnp.float32(1.5), jax.random.key(5))
    jax.eval_shape(planner.act, compiled.Weights(params, stats, jnp.float32(2.0)), *args)
    assert found == asked  # with a full window, and before


@pytest.mark.slow
def test_environments_in_groups_decide_as_all_at_once(pretrained):
    model, params, stats = pretrained
    config = PlanConfig("returns", 64)  # two environments fill a chunk
    planner = compiled.make_planner(model, config, LIMIT)
    ctxs, keys = contexts_after(6, 4, count=6), jax.random.split(jax.random.key(5), 6)
    target = jnp.float32(1.5)
    actions, _ = planner.act(compiled.Weights(params, stats), ctxs, target, jax.random.key(5))
    world = pruned_world.pruned_world(model, params, stats, config, config.horizon)
    alone = jax.jit(lambda ctx, key: plan_of(config, world, None, ctx, target, key))
    for k in range(6):
        plan = alone(jax.tree.map(lambda x: x[k], ctxs), keys[k])  # noqa: B023
        np.testing.assert_allclose(actions[k], plan.action, rtol=1e-4, atol=1e-5)


def test_decisions_do_not_depend_on_the_batch(pretrained, planners):
    _, params, stats = pretrained
    ctxs = contexts_after(6, 4)
    weights = compiled.Weights(params, stats, jnp.float32(2.0))
    together, again = (
        planners("returns").explain(weights, batch, jnp.float32(1.5), jax.random.key(5), horizon=8)
        for batch in (ctxs, jax.tree.map(lambda x: x.at[0].set(x[1]) if x.ndim > 1 else x, ctxs))
    )
    assert not np.array_equal(again.action[0], together.action[0])
    np.testing.assert_allclose(again.action[1:], together.action[1:], rtol=1e-6)


@pytest.mark.slow
def test_another_model_may_answer_what_candidates_lead_to(pretrained):
    """The candidates are the first model's, every number of the rollout the second's."""
    model, params, stats = pretrained
    other = jax.tree.map(lambda x: 0.5 * x, params)
    config, ctxs = CONFIGS["returns"], contexts_after(6, 4)
    rest = (ctxs, jnp.float32(1.5), jax.random.key(5))
    planner = compiled.make_planner(model, config, LIMIT, world_model=model)
    found = planner.explain(compiled.Weights(params, stats, world=(other, stats)), *rest)
    alone = compiled.make_planner(model, config, LIMIT)
    proposing = alone.explain(compiled.Weights(params, stats), *rest)
    np.testing.assert_allclose(found.candidates, proposing.candidates, rtol=1e-5)
    rollout = jax.jit(worlds.plain_world(model, other, stats, config, 4).rollout)
    for k in range(2):
        expected = rollout(jax.tree.map(lambda x: x[k], ctxs), found.candidates[k])  # noqa: B023
        for ours, theirs in zip(jax.tree.leaves(found.rollout), expected, strict=True):
            np.testing.assert_allclose(ours[k], theirs, rtol=2e-4, atol=2e-4)
    assert not np.allclose(found.rollout.rewards, proposing.rollout.rewards, rtol=1e-2)


def test_the_step_of_the_episode_compiles_nothing_again(pretrained):
    model, params, stats = pretrained
    counted = chex.assert_max_traces(model.query, n=4)  # of two branches' two passes each
    planner = compiled.make_planner(model._replace(query=counted), CONFIGS["returns"], LIMIT)
    for steps in (0, 1, 4, 5, 6):
        ctxs = contexts_after(steps, 4)
        planner.act(compiled.Weights(params, stats), ctxs, jnp.float32(1.0), jax.random.key(steps))


# --- guidance ---


def some_rollout(horizon, candidates=3):
    rng = np.random.default_rng(4)
    states, rewards = (
        rng.normal(size=(candidates, horizon, S)),
        rng.normal(size=(candidates, horizon)),
    )
    return worlds.Rollout(jnp.asarray(states), jnp.asarray(rewards), jnp.full(rewards.shape, 7.0))


@pytest.mark.parametrize("t", [0, LIMIT - 2])
def test_guidance_by_values_of_states_is_equation_3_up_to_the_time_limit(t):
    """By hand, for a critic that values a state by its sum."""
    config = PlanConfig("value", horizon=4, discount=GAMMA, lambda_=0.3)
    steps = options.make_steps(config, LIMIT, lambda critic, s, a: critic * s.sum(-1), False)
    rollout, actions = some_rollout(4), jnp.zeros((3, 4, A))
    ctx = context.begin(jnp.zeros(S), A, WINDOW).replace(t=jnp.int32(t), slot=jnp.int32(4))
    values = steps.value_fn(2.0, rollout, actions, ctx.t)
    found = steps.score_fn(rollout.rewards, values, steps.length_fn(ctx, 4))
    length = min(4, LIMIT - t)
    r, v = np.asarray(rollout.rewards), 2.0 * np.asarray(rollout.states).sum(-1)
    sums = [sum(GAMMA**k * r[:, k] for k in range(n)) + GAMMA**n * v[:, n] for n in range(length)]
    weights = [0.7 * 0.3**n for n in range(length - 1)] + [0.3 ** (length - 1)]
    np.testing.assert_allclose(found, weights @ np.stack(sums), rtol=1e-5)
    assert (np.asarray(values)[:, length:] == 0).all() and (
        np.asarray(values)[:, :length] != 0
    ).all()


@pytest.mark.parametrize("guidance", ["returns", "value", "critic"])
def test_expected_falls_weigh_what_follows_them(guidance):
    """By hand: a state ends the episode with a probability that is its first dimension."""
    config = PlanConfig(
        guidance, discount=GAMMA, lambda_=1.0, falls="expected", fall_penalty=5.0, horizon=3
    )
    steps = options.make_steps(
        config, LIMIT, lambda c, s, a: c * s.sum(-1), False, lambda critic, s: s[..., 0]
    )
    rollout, r, v = some_rollout(3), *np.random.default_rng(5).normal(size=(2, 3, 3))
    p = np.array([[0.9, 0.0, 0.0], [0.9, 0.5, 0.0], [0.9, 0.2, 1.0]])  # the present one is past
    rollout = rollout._replace(states=rollout.states.at[..., 0].set(p), rewards=jnp.asarray(r))
    rewards, values = steps.fall_fn(2.0, rollout, jnp.asarray(v))
    found = steps.score_fn(rewards, values, 3)
    expected = [
        r[0, 0] + GAMMA * r[0, 1] + GAMMA**2 * v[0, 2],
        r[1, 0] - 5.0 * 0.5 + 0.5 * (GAMMA * r[1, 1] + GAMMA**2 * v[1, 2]),
        r[2, 0] - 5.0 * 0.2 + 0.8 * GAMMA * (r[2, 1] - 5.0),
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_plans_that_expect_falls_predict_the_states_that_they_ask_about(pretrained):
    """What acts predicts no more than utilities need; what explains predicts everything."""
    model, params, stats = pretrained
    config = PlanConfig("returns", 7, falls="expected", fall_penalty=50.0)
    planner = compiled.make_planner(
        model, config, LIMIT, end_fn=lambda scale, s: jax.nn.sigmoid(scale * s.sum(-1))
    )
    args = compiled.Weights(params, stats, 3.0), contexts_after(6, 4), jnp.float32(1.5)
    found, plans = (
        planner.act(*args, jax.random.key(5))[0],
        planner.explain(*args, jax.random.key(5)),
    )
    np.testing.assert_allclose(found, plans.action, rtol=1e-4, atol=1e-5)
    steps = options.make_steps(config, LIMIT, None, False)
    ignored = jax.vmap(steps.score_fn)(plans.rollout.rewards, plans.values, plans.length)
    assert np.abs(plans.utilities - ignored).max() > 1.0


@pytest.mark.parametrize("steps", [pytest.param(0, marks=pytest.mark.slow), 6])
def test_the_control_decides_like_predicted_returns_that_weigh_nothing(pretrained, steps):
    """The same key draws the same candidates, and no rollout is computed for the control."""
    model, params, stats = pretrained
    asked = []

    def counting(*args):
        asked.append(sorted(args[-1]))
        return model.query(*args)

    def decide(config, model):
        planner = compiled.make_planner(model, config, LIMIT)
        args = compiled.Weights(params, stats), contexts_after(steps, 4), jnp.float32(1.5)
        return planner.act(*args, jax.random.key(5))[0]

    weightless = decide(PlanConfig("returns", 7, xi=0.0), model)
    control = decide(PlanConfig("none", 7), model._replace(query=counting))
    np.testing.assert_array_equal(control, weightless)
    assert asked == [["actions"]]  # by the policy alone
    assert (decide(PlanConfig("returns", 7), model) != control).any()


# --- refusals ---


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"candidates": 0}, "plan candidates is 0; it must be at least 1"),
        ({"horizon": 0}, "plan horizon is 0"),
        ({"history": -1}, "plan history is -1"),
        ({"lambda_": 1.5}, "lambda_ is 1.5; it must be in"),
        ({"xi": float("nan")}, "xi is nan; it must be finite"),
        ({"spread": -0.5}, "spread is -0.5; it must be finite, not negative"),
        ({"readout": "rq"}, "readout is 'rq'; choose fd or rp"),
        ({"guidance": "q"}, "guidance is 'q'; choose none or returns or value or critic"),
        ({"guidance": "none", "xi": 1.0}, "xi is 1.0; without guidance there are no utilities"),
        ({"guidance": "critic", "pessimism": -1.0}, "pessimism is -1.0; it must be finite"),
        ({"pessimism": 1.0}, "which is for guidance 'critic', and the guidance is 'returns'"),
        ({"fall_penalty": 10.0}, "fall_penalty is 10.0, and falls are ignored"),
        ({"falls": "soft"}, "falls is 'soft'; choose ignored or expected"),
        ({"compute_dtype": "int8"}, "compute_dtype is 'int8'; choose '' or float32 or bfloat16"),
        ({"current_state": "reconstructed"}, "'reconstructed' needs pruned=False"),
    ],
)
def test_a_senseless_plan_is_refused(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        PlanConfig(**settings)


def test_what_guides_a_plan_decides_the_settings_that_are_left_open():
    found = {g: PlanConfig(g) for g in ("none", "returns", "value", "critic")}
    assert {g: (p.discount, p.xi, p.spread, p.readout) for g, p in found.items()} == {
        "none": (0.99, 0.0, 0.5, "fd"),
        "returns": (0.99, 1.0, 0.5, "rp"),
        "value": (None, 1.0, 0.5, "fd"),
        "critic": (None, 1.0, 1.0, "fd"),
    }
    for guidance in found:
        given = PlanConfig(guidance, discount=0.9, spread=0.0, readout="fd")
        assert (given.discount, given.spread, given.readout) == (0.9, 0.0, "fd")


@pytest.mark.parametrize(
    ("settings", "value", "sentence"),
    [
        ({"horizon": 5}, None, "history of 4 and a horizon of 5 steps need a window of 9"),
        ({"guidance": "critic"}, None, "'critic' needs a critic and this run has none"),
        ({"guidance": "value"}, None, "'value' needs a critic and this run has none"),
        ({"guidance": "critic"}, critic_value, "needs the discount that the critic was trained"),
    ],
)
def test_a_plan_that_the_model_cannot_carry_out_is_refused(pretrained, settings, value, sentence):
    with pytest.raises(UserError, match=sentence):
        compiled.make_planner(pretrained[0], PlanConfig(**settings), LIMIT, value)


@pytest.mark.parametrize("missing", ["rewards", "returns"])
def test_a_model_without_rewards_or_returns_cannot_plan(pretrained, missing):
    config = pretrained[0].config
    specs = tuple(m for m in config.modalities if m.name != missing)
    model = make_model(dataclasses.replace(config, modalities=specs))
    with pytest.raises(UserError, match=f"has no {missing}, so it cannot score plans"):
        compiled.make_planner(model, PlanConfig(), LIMIT)
