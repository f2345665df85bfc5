"""The roles of one model: a prompt makes it a policy, a world model or an inverse dynamics model.

Functions here are written for one window and vmapped by the caller.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from mtm_jax import distributions, masks, tokens
from mtm_jax.config import DEFAULT_PROMPT, PromptConfig
from mtm_jax.errors import UserError
from mtm_jax.models.trajectory_model import Model
from mtm_jax.planning import context as context_lib
from mtm_jax.types import Visible

Stats = Mapping[str, tokens.Stats]

# The prompts that policies act by.
POLICIES = ("bc", "rcbc")


class Imagined(NamedTuple):
    """What the world model predicts; row n depends on the first n + 1 actions."""

    next_states: Array  # [h, S]
    rewards: Array | None  # [h], of the actions; None if the model has no rewards
    return_tokens: Array | None  # [h], average return to go at each action; None likewise


def show(
    model: Model, params: dict, stats: Stats, values: Mapping[str, Array], visible: Visible
) -> dict:
    """Run the model on one window, modality -> [T, D] raw, under a mask; return its outputs."""
    inputs = tokens.encode_modalities(model.config.modalities, stats, values)
    return model.apply(params, inputs, {m: visible[m] for m in inputs})


def predict(
    model: Model, params: dict, stats: Stats, values: Mapping[str, Array], prompt: str, slot: Array
) -> dict:
    """Run the model on one window under a prompt of `masks.prompt`; return its outputs."""
    return show(model, params, stats, values, masks.prompt(prompt, slot, model.config.window))


def decode(model: Model, stats: Stats, outputs: dict) -> dict[str, Array]:
    """Turn outputs into raw values, modality -> [T, D]; a distribution by its mode."""
    return {
        spec.name: tokens.decode_prediction(spec, stats[spec.name], outputs[spec.name])
        for spec in model.config.modalities
    }


def inpaint(
    model: Model,
    params: dict,
    stats: Stats,
    values: Mapping[str, Array],
    visible: Visible,
) -> dict[str, Array]:
    """Predict every token of one window under any mask; the other roles are cases of this one.

    Args:
        model, params, stats: the pretrained model.
        values: modality -> [T, D] raw, actions in [-1, 1]; hidden ones may hold anything, also NaN.
        visible: modality -> [T] bool.

    Returns:
        modality -> [T, D] raw, actions in [-1, 1]; visible ones as the model reconstructs them.
    """
    predicted = decode(model, stats, show(model, params, stats, values, visible))
    if "actions" in predicted:
        predicted["actions"] = jnp.clip(predicted["actions"], -1.0, 1.0)
    return predicted


def act(
    model: Model,
    params: dict,
    stats: Stats,
    context: context_lib.Context,
    target: Array,
    prompt: str = "rcbc",
    key: Array | None = None,
    config: PromptConfig = DEFAULT_PROMPT,
) -> Array:
    """Choose an action for the current slot by (return-conditioned) behaviour cloning.

    MTM section 3.3.

    Args:
        model, params, stats: the pretrained model.
        context: the window of recent history.
        target: return token to ask for, []; ignored by "bc".
        prompt: "rcbc" (return-conditioned) or "bc".
        key: draw from the action distribution instead of what `config.action` says.
        config: how to act; its precision is the model's affair.

    Returns:
        [A] in [-1, 1].
    """
    values, window = context_lib.window_values(context, target), model.config.window
    visible = masks.prompt(prompt, context.slot, window)
    if config.returns_shown == "present":
        visible["returns"] &= jnp.arange(window) == context.slot
    if config.guidance == 1.0:
        output = show(model, params, stats, values, visible)["actions"]
    else:
        unconditioned = masks.prompt("bc", context.slot, window)
        both = jax.tree.map(lambda *x: jnp.stack(x), visible, unconditioned)
        outputs = jax.vmap(lambda v: show(model, params, stats, values, v))(both)
        output = guide(outputs["actions"], config.guidance)
    if key is not None and isinstance(output, distributions.TanhNormal):
        wider = output._replace(log_std=output.log_std + math.log(config.temperature))
        return distributions.sample(key, wider)[context.slot]
    if config.action == "mean":
        return distributions.mean(jax.tree.map(lambda x: x[context.slot], output))
    return action_at(model, stats, {"actions": output}, context.slot)


def guide(pair: distributions.TanhNormal, w: float) -> distributions.TanhNormal:
    """Guide between two prompts, before the tanh (CFGRL, arXiv 2505.23458).

    Args:
        pair: under the prompt "rcbc" and under "bc", [2, ..., A].
        w: 0 has the location of "bc", 1 that of "rcbc".

    Returns:
        [..., A], with the standard deviation of "rcbc".
    """
    conditioned, plain = pair.loc
    return distributions.TanhNormal(plain + w * (conditioned - plain), pair.log_std[0])


def action_at(model: Model, stats: Stats, outputs: dict, slot: Array) -> Array:
    """Read the action of one slot from the outputs of a pass, by its mode: [A] in [-1, 1]."""
    output = outputs["actions"]
    spec = next(m for m in model.config.modalities if m.name == "actions")
    actions = tokens.decode_prediction(spec, stats["actions"], output)
    return jnp.clip(actions[slot], -1.0, 1.0)


def inverse_dynamics(
    model: Model, params: dict, stats: Stats, states: Array, actions: Array, slot: Array
) -> Array:
    """Infer the action at `slot` from all states of a window and the actions before it.

    Args:
        states: [T, S] raw.
        actions: [T, A] in [-1, 1]; those from `slot` on are ignored.
        slot: [] int.

    Returns:
        [A] in [-1, 1].
    """
    values = fill(model, states, actions)
    outputs = predict(model, params, stats, values, "id", slot)
    return action_at(model, stats, outputs, slot)


def fill(model: Model, states: Array, actions: Array) -> dict[str, Array]:
    """Complete a window, [T, S] and [T, A] raw, for prompts that hide returns and rewards."""
    zeros = jnp.zeros((model.config.window, 1))
    return {"states": states, "returns": zeros, "actions": actions, "rewards": zeros}


def imagine(
    model: Model,
    params: dict,
    stats: Stats,
    context: context_lib.Context,
    actions: Array,
    history: int,
) -> Imagined:
    """Roll actions out inside the model, one forward-dynamics pass per step.

    Each pass sees the recent states, true ones and then predicted ones, and all later actions.

    Args:
        context: the window to start from.
        actions: [h, A] in [-1, 1], any h.
        history: past steps to keep, at most T - 2.

    Raises:
        UserError: the history leaves no slot for a prediction.
    """
    if not 0 <= history <= model.config.window - 2:
        raise UserError(
            f"a history of {history} steps leaves no slot to predict in a window of "
            f"{model.config.window}; use 0 to {model.config.window - 2}, and a window of at least 2"
        )
    slots, horizon = jnp.arange(model.config.window), actions.shape[0]

    def step(ctx: context_lib.Context, n: Array) -> tuple[context_lib.Context, Imagined]:
        planned = n + slots - ctx.slot  # [T], which planned action a slot holds
        plan = actions[jnp.clip(planned, 0, horizon - 1)]
        known = jnp.where((slots < ctx.slot)[:, None], ctx.actions, plan)
        visible = masks.prompt("fd", ctx.slot, model.config.window)
        visible["actions"] = planned < horizon
        outputs = show(model, params, stats, fill(model, ctx.states, known), visible)
        predicted = decode(model, stats, outputs)
        next_obs = predicted["states"][ctx.slot + 1]
        reward = predicted["rewards"][ctx.slot, 0] if "rewards" in predicted else None
        to_go = predicted["returns"][ctx.slot, 0] if "returns" in predicted else None
        row = Imagined(next_obs, reward, to_go)
        # Rewards are hidden under this prompt, so that any value may stand for a missing one.
        past_reward = jnp.zeros(()) if reward is None else reward
        return context_lib.extend(ctx, actions[n], past_reward, next_obs, history), row

    return jax.lax.scan(step, context, jnp.arange(horizon))[1]
