"""Backward M3PC is two passes of the model under the prompts PI and ID, and nothing else."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_models import noisy_params
from test_roles import SPECS, STATS, WINDOW, A, S, some_context

from mtm_jax import distributions, masks, tokens
from mtm_jax.config import GoalConfig, ModelConfig
from mtm_jax.models import trajectory_model as model
from mtm_jax.planning import backward, context, roadmap

LAST, DEFAULT = WINDOW - 1, GoalConfig()
STATES = np.random.default_rng(7).normal(size=(6, S)).astype(np.float32)


@pytest.fixture(scope="module")
def real():
    """A real model, untrained."""
    network = model.make_model(ModelConfig(SPECS, WINDOW, 16, 2, 1, 1, dropout=0.0))
    return network, noisy_params(network)


@pytest.fixture(scope="module")
def decide(real):
    network, params = real
    static = ("method", "config", "complete")
    compiled = jax.jit(functools.partial(backward.decide, network), static_argnames=static)

    def call(ctx, goals, method="m3pc_goal", config=DEFAULT, complete=True):
        return compiled(params, STATS, ctx, goals, method=method, config=config, complete=complete)

    return call


def waypoints(*steps, given=None):
    shown = np.ones((len(steps), S), bool) if given is None else np.tile(given, (len(steps), 1))
    return backward.Waypoints(STATES[: len(steps)], np.int32(steps), shown)


def at_step(slot, t):
    return some_context(slot).replace(t=jnp.int32(t))


def full_pass(real, states, actions, prompt, slot):
    """Outputs of `Model.apply` for a window, decoded."""
    network, params = real
    zeros = jnp.zeros((WINDOW, 1))
    values = {"states": states, "returns": zeros, "actions": actions, "rewards": zeros}
    inputs = tokens.encode_modalities(SPECS, STATS, values)
    outputs = jax.jit(network.apply)(params, inputs, masks.prompt(prompt, slot, WINDOW))
    action = distributions.mode(outputs["actions"])
    return tokens.decode(STATS["states"], outputs["states"]), action


@pytest.mark.parametrize("slot", [0, 1, 2])
def test_it_is_path_inference_and_then_inverse_dynamics(real, decide, slot):
    ctx = at_step(slot, 10)
    found = decide(ctx, waypoints(10 + LAST - slot), config=GoalConfig(path="predicted"))
    seen = ctx.states.at[LAST].set(STATES[0])
    inferred, under_one_mask = full_pass(real, seen, ctx.actions, "pi", slot)
    between = (jnp.arange(WINDOW) > slot) & (jnp.arange(WINDOW) < LAST)
    path = jnp.where(between[:, None], inferred, seen)
    _, action = full_pass(real, path, ctx.actions, "id", slot)
    np.testing.assert_allclose(found.path, path, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.action, action[slot], rtol=1e-4, atol=1e-5)
    single = decide(ctx, waypoints(10 + LAST - slot), "goal_mask")
    np.testing.assert_allclose(single.action, under_one_mask[slot], rtol=1e-4, atol=1e-5)
    assert np.abs(single.action - found.action).max() > 1e-3


def test_an_anchored_path_has_no_error_that_changes_evenly(real):
    ctx, true = at_step(1, 4), np.random.default_rng(1).normal(size=(WINDOW, S))
    aimed = backward.Aim(ctx.replace(states=jnp.asarray(true)), true[LAST], np.ones(S, bool), LAST)
    error = np.arange(WINDOW)[:, None] * np.linspace(-1.0, 1.0, S) + 0.5
    path = backward.PATHS["anchored"](aimed, jnp.asarray(true + error))
    np.testing.assert_allclose(path[1:], true[1:], atol=1e-5)


@pytest.mark.parametrize(("slot", "t", "steps"), [(3, 9, (10, 13)), (1, 1, (4,)), (3, 9, (12, 20))])
def test_true_states_and_the_goal_reach_inverse_dynamics_unchanged(decide, slot, t, steps):
    ctx = at_step(slot, t)
    found = decide(ctx, waypoints(*steps))
    here, goal = int(found.slot), int(found.goal_slot)
    assert goal - here == steps[0] - t
    np.testing.assert_array_equal(found.path[: here + 1], ctx.states[slot - here : slot + 1])
    np.testing.assert_array_equal(found.path[goal], STATES[0])


def test_with_a_spacing_of_one_no_path_is_inferred(real, decide):
    """The goal is the state that follows, and inverse dynamics alone decides."""
    ctx = at_step(LAST - 1, 20)
    found = decide(ctx, waypoints(21, 22, 23))
    path = ctx.states.at[LAST].set(STATES[0])
    np.testing.assert_array_equal(found.path, path)
    _, alone = full_pass(real, path, ctx.actions, "id", LAST - 1)
    np.testing.assert_allclose(found.action, alone[LAST - 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("t", "ahead", "goal", "distance"),
    [
        (0, 1, 0, 3),
        (2, 1, 0, 1),
        (3, 1, 1, 2),  # at the step of a goal the next one counts
        (0, 3, 0, 3),
        (1, 3, 1, 4),
        (4, 1, 1, 1),
        (5, 1, 1, 1),  # the last goal is held
        (900, 1, 1, 1),
        (900, 3, 1, 3),
    ],
)
def test_the_goal_and_its_slot(t, ahead, goal, distance):
    slot = min(t, LAST - ahead)
    aimed = backward.aim(at_step(slot, t), waypoints(3, 5), GoalConfig(ahead=ahead))
    np.testing.assert_array_equal(aimed.state, STATES[goal])
    assert int(aimed.slot) - int(aimed.context.slot) == distance
    assert int(aimed.slot) == min(LAST, slot + distance)


def test_a_goal_beyond_the_reach_is_aimed_at_as_if_it_were_that_near():
    aimed = backward.aim(at_step(3, 3), waypoints(90), GoalConfig(reach=2))
    assert (int(aimed.context.slot), int(aimed.slot)) == (2, 4)


def test_on_a_map_the_subgoal_of_the_present_state_is_aimed_at():
    ctx, last = at_step(3, 80), np.arange(6) == 5
    states = np.cumsum(np.abs(STATES), axis=0)
    found = roadmap.build(states, last, last, np.ones(S, np.float32), stride=2, penalty=1e3)
    near = ctx.replace(states=ctx.states.at[3].set(states[2] + 0.01))
    aimed = backward.aim_along(near, found)
    np.testing.assert_array_equal(aimed.state, states[3])
    assert int(aimed.slot) - int(aimed.context.slot) == 2


def test_moving_a_window_keeps_the_latest_steps():
    ctx = some_context(3)
    moved = context.move(ctx, jnp.int32(1))
    np.testing.assert_array_equal(moved.states[:2], ctx.states[2:4])
    np.testing.assert_array_equal(moved.actions[0], ctx.actions[2])
    np.testing.assert_array_equal(context.move(ctx, ctx.slot).states, ctx.states)


def test_what_is_not_given_has_no_effect_and_what_is_given_stays(decide):
    ctx, given = at_step(2, 4), np.arange(S) == 1
    goals = waypoints(6, given=given)
    other = goals._replace(states=np.where(given, goals.states, 99.0).astype(np.float32))
    found, again = (decide(ctx, g, complete=False) for g in (goals, other))
    np.testing.assert_array_equal(found.action, again.action)
    assert found.goal[1] == STATES[0, 1] and (found.goal != STATES[0])[~given].all()
    whole, same = decide(ctx, waypoints(6)), decide(ctx, waypoints(6), complete=False)
    np.testing.assert_allclose(whole.action, same.action, rtol=1e-5, atol=1e-6)


def test_in_painting_starts_from_what_is_expected_without_a_goal(real, decide):
    ctx, given = at_step(1, 4), np.arange(S) == 1
    found = decide(ctx, waypoints(7, given=given), config=GoalConfig(inpainting=0), complete=False)
    expected, _ = full_pass(real, ctx.states, ctx.actions, "bc", 1)
    np.testing.assert_allclose(found.goal[~given], expected[LAST][~given], rtol=1e-4, atol=1e-5)


def test_environments_decide_like_each_alone(decide):
    contexts = [at_step(s, t) for s, t in ((0, 0), (3, 6), (2, 2))]
    goals = waypoints(2, 4, 8)
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *contexts)
    together = jax.vmap(lambda c: decide(c, goals))(stacked)
    for e, ctx in enumerate(contexts):
        alone = decide(ctx, goals)
        np.testing.assert_allclose(together.action[e], alone.action, rtol=1e-4, atol=1e-5)
        assert together.action.shape == (3, A)
