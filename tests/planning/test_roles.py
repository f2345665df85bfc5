"""Prompts hide what they must, and roles reproduce a model whose dynamics are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtm_jax import distributions, masks, tokens
from mtm_jax.config import ModelConfig, PromptConfig
from mtm_jax.errors import UserError
from mtm_jax.models import trajectory_model as model
from mtm_jax.planning import context, roles
from mtm_jax.types import ModalitySpec

WINDOW, S, A = 5, 3, 2
SPECS = (
    ModalitySpec("states", S),
    ModalitySpec("returns", 1),
    ModalitySpec("actions", A, head="tanh_normal"),
    ModalitySpec("rewards", 1),
)
RNG = np.random.default_rng(0)
STATS = {
    m.name: tokens.Stats(
        mean=jnp.asarray(RNG.normal(size=m.features), jnp.float32),
        std=jnp.asarray(RNG.uniform(0.5, 2.0, m.features), jnp.float32),
        min=-jnp.ones(m.features),
        max=jnp.ones(m.features),
    )
    for m in SPECS
}
# x_{t+1} = F x_t + G x_{t-1} + H a_t + K a_{t-1}: the step before the current one counts as well.
SHAPES = (S, S), (S, S), (S, A), (S, A)
F, G, H, K = (RNG.normal(size=shape).astype(np.float32) / 3 for shape in SHAPES)
REWARD, VALUE = np.float32([0.5, -1.0, 2.0]), np.float32([1.0, 0.2, -0.3])


@pytest.fixture(scope="module")
def real():
    """A real model, untrained."""
    network = model.make_model(ModelConfig(SPECS, WINDOW, 16, 2, 1, 1, dropout=0.0))
    return network, network.init(jax.random.key(0))


@pytest.fixture(scope="module")
def act(real):
    network, params = real
    compiled = jax.jit(functools.partial(roles.act, network), static_argnames=("prompt", "config"))
    return functools.partial(compiled, params, STATS)


def some_context(slot):
    keys = jax.random.split(jax.random.key(1), 3)
    shapes = (WINDOW, S), (WINDOW, A), (WINDOW, 1)
    draw = functools.partial(jax.random.uniform, minval=-0.9, maxval=0.9)
    values = [draw(key, shape) for key, shape in zip(keys, shapes, strict=True)]
    return context.Context(*values, jnp.int32(slot), jnp.int32(slot))


def with_garbage_beyond(ctx):
    """Change all that a decision in the current slot must not see."""
    slots = jnp.arange(WINDOW)[:, None]
    return context.Context(
        states=jnp.where(slots > ctx.slot, 99.0, ctx.states),
        actions=jnp.where(slots >= ctx.slot, jnp.nan, ctx.actions),
        rewards=jnp.full_like(ctx.rewards, -77.0),
        slot=ctx.slot,
        t=ctx.t,
    )


@pytest.mark.parametrize("prompt", roles.POLICIES)
def test_policies_see_nothing_of_what_is_unknown(act, prompt):
    for slot in (0, 2, WINDOW - 1):
        ctx = some_context(slot)
        action = act(ctx, jnp.float32(0.5), prompt)
        np.testing.assert_array_equal(
            action, act(with_garbage_beyond(ctx), jnp.float32(0.5), prompt)
        )
        assert np.abs(action).max() <= 1.0


@pytest.mark.parametrize("prompt", roles.POLICIES)
def test_policies_see_the_known_past(act, prompt):
    ctx, target = some_context(2), jnp.float32(0.5)
    action = act(ctx, target, prompt)
    for field, slot in (("states", 0), ("states", 2), ("actions", 1)):
        changed = ctx.replace(**{field: getattr(ctx, field).at[slot].add(0.05)})
        assert (act(changed, target, prompt) != action).any(), (field, slot)


def test_the_target_counts_under_rcbc_only(act):
    ctx = some_context(2)
    low, high = jnp.float32(0.0), jnp.float32(3.0)
    np.testing.assert_array_equal(act(ctx, low, "bc"), act(ctx, high, "bc"))
    assert (act(ctx, low, "rcbc") != act(ctx, high, "rcbc")).any()


def test_a_key_draws_from_the_action_distribution(act):
    ctx, target = some_context(2), jnp.float32(0.5)
    draw = functools.partial(act, ctx, target, "rcbc")
    first, again, other = (draw(key=jax.random.key(k)) for k in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (first != draw()).all()


def distribution(real, ctx, visible):
    """The distribution of the present action under a mask, with a target of 0.5."""
    network, params = real
    values = context.window_values(ctx, jnp.float32(0.5))
    output = roles.show(network, params, STATS, values, visible)["actions"]
    return jax.tree.map(lambda x: x[ctx.slot], output)


@pytest.mark.parametrize("w", [0.0, 0.5, 3.0])
def test_guidance_moves_the_location_from_bc_beyond_rcbc(real, act, w):
    ctx = some_context(2)
    bc, rcbc = (distribution(real, ctx, masks.prompt(p, 2, WINDOW)) for p in ("bc", "rcbc"))
    expected = jnp.tanh(bc.loc + w * (rcbc.loc - bc.loc))
    found = act(ctx, jnp.float32(0.5), config=PromptConfig(guidance=w))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert (jnp.abs(bc.loc - rcbc.loc) > 1e-3).all()


def test_rcbc_is_its_own_guidance_of_one_in_a_single_pass(real):
    network, params = real
    applied = []

    def counting(*args):
        applied.append(None)
        return network.apply(*args)

    def act(config):
        model = network._replace(apply=counting)
        return roles.act(model, params, STATS, some_context(2), 0.5, config=config)

    plain = act(PromptConfig())
    np.testing.assert_allclose(plain, act(PromptConfig(guidance=1.0 + 1e-7)), atol=1e-5)
    assert len(applied) == 2  # both prompts of the second are one batch


def test_the_mean_action_is_that_of_the_predicted_distribution(real, act):
    ctx = some_context(2)
    dist = distribution(real, ctx, masks.prompt("rcbc", 2, WINDOW))
    found = act(ctx, jnp.float32(0.5), config=PromptConfig(action="mean"))
    np.testing.assert_allclose(found, distributions.mean(dist), rtol=1e-4, atol=1e-6)
    assert (found != act(ctx, jnp.float32(0.5))).all()


def test_a_temperature_scales_the_distance_from_the_location(act):
    ctx, key, target = some_context(2), jax.random.key(0), jnp.float32(0.5)
    location = jnp.arctanh(act(ctx, target))

    def distance(temperature):
        config = PromptConfig(action="sample", temperature=temperature)
        return jnp.arctanh(act(ctx, target, key=key, config=config)) - location

    np.testing.assert_allclose(distance(0.5), 0.5 * distance(1.0), rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(distance(1.0), jnp.arctanh(act(ctx, target, key=key)) - location)


def test_the_target_may_be_shown_at_the_present_step_alone(real, act):
    ctx, config = some_context(2), PromptConfig(returns_shown="present")
    visible = masks.prompt("bc", 2, WINDOW) | {"returns": jnp.arange(WINDOW) == 2}
    found = act(ctx, jnp.float32(0.5), config=config)
    expected = jnp.tanh(distribution(real, ctx, visible).loc)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert (found != act(ctx, jnp.float32(0.5))).any()


def linear_outputs(inputs, visible):
    """What a perfect model of the linear system predicts from visible values alone.

    What a prompt hides is NaN here, so that reading it shows.
    """
    raw = {m: tokens.decode(STATS[m], x) for m, x in inputs.items() if m != "actions"}
    states = jnp.where(visible["states"][:, None], raw["states"], jnp.nan)
    actions = jnp.where(visible["actions"][:, None], inputs["actions"], jnp.nan)
    path = [states[0]]
    for k in range(1, WINDOW):
        following = F @ path[k - 1] + H @ actions[k - 1]
        following += G @ path[k - 2] + K @ actions[k - 2] if k > 1 else 0.0
        path.append(jnp.where(visible["states"][k], states[k], following))
    path = jnp.stack(path)
    rewards = path @ REWARD + actions.sum(-1)
    found = {"states": path, "returns": (path @ VALUE)[:, None], "rewards": rewards[:, None]}
    return {m: tokens.encode(STATS[m], x) for m, x in found.items()}


def linear_model(window=WINDOW, with_rewards=True):
    specs = SPECS if with_rewards else SPECS[:-1]
    specs = tuple(ModalitySpec(m.name, m.features) for m in specs)
    names = [m.name for m in specs if m.name != "actions"]

    def apply(params, inputs, visible, dropout_key=None):
        # Actions are tokens as they are, to keep the example readable.
        inputs = dict(inputs) | {"actions": tokens.decode(STATS["actions"], inputs["actions"])}
        found = linear_outputs(inputs, visible)
        return {m: found[m] for m in names} | {"actions": inputs["actions"]}

    return model.Model(ModelConfig(specs, window, 16, 2), lambda key: {}, apply, None, None)


def simulate(states, actions, last_action=(0.0, 0.0)):
    """The linear system from two states and the action between them on, [h, S] next states."""
    before, now, following = *states, []
    for action in actions:
        before, now = now, F @ now + G @ before + H @ action + K @ last_action
        last_action = action
        following.append(now)
    return np.stack(following)


@pytest.mark.parametrize("horizon", [1, 3, 9])
@pytest.mark.parametrize("history", [1, 3])
def test_imagination_follows_known_dynamics(horizon, history):
    actions = RNG.uniform(-1, 1, (horizon, A)).astype(np.float32)
    now = RNG.normal(size=S).astype(np.float32)
    start = context.begin(jnp.asarray(now), A, WINDOW)
    imagined = roles.imagine(linear_model(), {}, STATS, start, jnp.asarray(actions), history)
    expected = simulate((np.zeros(S, np.float32), now), actions)
    at_action = np.concatenate([now[None], expected[:-1]])  # the state of each action
    np.testing.assert_allclose(imagined.next_states, expected, rtol=1e-3, atol=1e-4)
    rewards = at_action @ REWARD + actions.sum(-1)
    np.testing.assert_allclose(imagined.rewards, rewards, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(imagined.return_tokens, at_action @ VALUE, rtol=1e-3, atol=1e-4)


def test_imagination_starts_from_the_middle_of_an_episode():
    ctx = some_context(2)
    actions = RNG.uniform(-1, 1, (4, A)).astype(np.float32)
    imagined = roles.imagine(
        linear_model(), {}, STATS, with_garbage_beyond(ctx), jnp.asarray(actions), 2
    )
    expected = simulate(np.asarray(ctx.states[1:3]), actions, ctx.actions[1])
    np.testing.assert_allclose(imagined.next_states, expected, rtol=1e-3, atol=1e-4)


def test_imagination_without_a_reward_modality_says_so():
    start = context.begin(jnp.ones(S), A, WINDOW)
    imagined = roles.imagine(
        linear_model(with_rewards=False), {}, STATS, start, jnp.zeros((2, A)), 1
    )
    assert imagined.rewards is None
    expected = simulate((np.zeros(S), np.ones(S)), np.zeros((2, A)))
    np.testing.assert_allclose(imagined.next_states, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("window", "history"), [(WINDOW, WINDOW - 1), (1, -1)])
def test_imagination_needs_a_slot_to_predict(window, history):
    start = context.begin(jnp.ones(S), A, window)
    with pytest.raises(UserError, match=f"history of {history} steps .* window of {window}"):
        roles.imagine(linear_model(window), {}, STATS, start, jnp.zeros((2, A)), history)


def inverse_model():
    """a_t = mean of (s_{t+1} - s_t) + 0.1 (first dimension of a_{t-1}), from visible values."""
    specs = tuple(ModalitySpec(m.name, m.features) for m in SPECS)

    def apply(params, inputs, visible, dropout_key=None):
        states = tokens.decode(STATS["states"], inputs["states"])
        states = jnp.where(visible["states"][:, None], states, jnp.nan)
        actions = tokens.decode(STATS["actions"], inputs["actions"])
        actions = jnp.where(visible["actions"][:, None], actions, jnp.nan)
        change = jnp.diff(states, axis=0, append=states[-1:]).mean(-1)
        previous = jnp.concatenate([jnp.zeros(1), actions[:-1, 0]])
        found = jnp.repeat((change + 0.1 * previous)[:, None], A, axis=1)
        return dict(inputs) | {"actions": tokens.encode(STATS["actions"], found)}

    return model.Model(ModelConfig(specs, WINDOW, 16, 2), lambda key: {}, apply, None, None)


@pytest.mark.parametrize("slot", [0, 2, WINDOW - 2])
def test_inverse_dynamics_recovers_a_known_action(slot):
    states = RNG.uniform(-0.3, 0.3, (WINDOW, S)).astype(np.float32)
    actions = RNG.uniform(-0.5, 0.5, (WINDOW, A)).astype(np.float32)
    previous = actions[slot - 1, 0] if slot else 0.0
    expected = (states[slot + 1] - states[slot]).mean() + 0.1 * previous
    actions[slot:] = np.nan  # ignored from the slot on
    found = roles.inverse_dynamics(
        inverse_model(), {}, STATS, jnp.asarray(states), jnp.asarray(actions), jnp.int32(slot)
    )
    np.testing.assert_allclose(found, [expected] * A, atol=1e-5)


def test_forward_dynamics_predict_from_the_slot_on():
    states = RNG.normal(size=(WINDOW, S)).astype(np.float32)
    actions = RNG.uniform(-1, 1, (WINDOW, A)).astype(np.float32)
    hidden = np.where(np.arange(WINDOW)[:, None] > 1, np.nan, states)
    nothing = jnp.zeros((WINDOW, 1))
    values = {"states": hidden, "returns": nothing, "actions": actions, "rewards": nothing}
    values = jax.tree.map(jnp.asarray, values)
    network = linear_model()
    outputs = roles.predict(network, {}, STATS, values, "fd", jnp.int32(1))
    found = roles.decode(network, STATS, outputs)
    expected = simulate(states[:2], actions[1:-1], actions[0])
    np.testing.assert_allclose(found["states"][2:], expected, rtol=1e-3, atol=1e-4)
