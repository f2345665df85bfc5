"""What the masks make of the model for a planner: a policy that proposes, a world that answers.

A planner asks for two functions, whatever stands behind them (see `World`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from mtm_jax import distributions, masks, tokens
from mtm_jax.config import PlanConfig
from mtm_jax.model import Model, Placed
from mtm_jax.planning import context as context_lib
from mtm_jax.planning import roles

Stats = Mapping[str, tokens.Stats]


class Rollout(NamedTuple):
    """What candidates lead to, in raw units; entry n is episode step t + n.

    Where a world was asked for what utilities are made of only, the rest is zero.
    """

    states: Array  # [N, h, S], the first is the present state
    rewards: Array  # [N, h], of the actions
    return_tokens: Array  # [N, h], average return to go


class World(NamedTuple):
    """The two functions of a planner, for one environment.

    policy(context, target) -> TanhNormal [h, A], the actions of the horizon.
    rollout(context, actions) -> Rollout, from actions [N, h, A] in [-1, 1].
    """

    policy: Callable[[context_lib.Context, Array], distributions.TanhNormal]
    rollout: Callable[[context_lib.Context, Array], Rollout]


def horizon_slots(context: context_lib.Context, horizon: int, window: int) -> Array:
    """Window slots of the horizon's steps, [h]; those beyond the window repeat its last."""
    return jnp.minimum(context.slot + jnp.arange(horizon), window - 1)


def horizon_length(context: context_lib.Context, config: PlanConfig, horizon: int) -> Array:
    """Steps of the horizon that count, []: the plan ends with slot history + horizon - 1."""
    return jnp.minimum(horizon, config.history + config.horizon - context.slot)


def scored_length(length: Array, t: Array, config: PlanConfig, max_episode_steps: int) -> Array:
    """Steps that utilities are made of, []: none after the time limit, at least the present one.

    What candidates lead to is asked as in the middle of an episode, as the model was trained. The
    released planner scores beyond the limit.
    """
    if config.convention == "released":
        return length
    return jnp.clip(max_episode_steps - t, 1, length)


def draw(key: Array, dist: distributions.TanhNormal, config: PlanConfig) -> Array:
    """Draw the candidates' actions, independent over steps and dimensions: [N, h, A] (F6)."""
    wider = dist._replace(log_std=dist.log_std + jnp.log(config.spread))
    return distributions.sample(key, wider, (config.candidates,))


def plain_world(
    model: Model, params: dict, stats: Stats, config: PlanConfig, horizon: int
) -> World:
    """Build a world from whole passes of the model, all tokens of the window each.

    Args:
        model, params, stats: the pretrained model.
        config: of the plan.
        horizon: h, static; at the start of an episode it is longer than in the course of it.
    """
    window = model.config.window

    def policy(context: context_lib.Context, target: Array) -> distributions.TanhNormal:
        values = context_lib.window_values(context, target)
        outputs = roles.predict(model, params, stats, values, "rcbc", context.slot)
        slots = horizon_slots(context, horizon, window)
        return jax.tree.map(lambda x: x[slots], outputs["actions"])

    def rollout(context: context_lib.Context, actions: Array) -> Rollout:
        visible = masks.prompt("fd", context.slot, window)
        last = context.slot + horizon_length(context, config, horizon)
        visible["actions"] = jnp.arange(window) < last

        def one(plan: Array) -> dict[str, Array]:
            values = context_lib.window_values(with_plan(context, plan), jnp.zeros(()))
            predicted = show(values, visible)
            if config.readout == "rp":
                future = (jnp.arange(window) > context.slot)[:, None]
                values["states"] = jnp.where(future, predicted["states"], context.states)
                again = show(values, visible | {"states": jnp.arange(window) < last})
                predicted |= {m: again[m] for m in ("rewards", "returns")}
            return predicted

        return read(context, jax.vmap(one)(actions), config, horizon)

    def show(values: Mapping[str, Array], visible: Mapping[str, Array]) -> dict[str, Array]:
        return roles.decode(model, stats, roles.show(model, params, stats, values, visible))

    return World(policy, rollout)


def pruned_world(
    model: Model,
    params: dict,
    stats: Stats,
    config: PlanConfig,
    horizon: int,
    scored_only: bool = False,
) -> World:
    """Build the same world from what is visible and asked for only; see `Model.query`.

    Args:
        model, params, stats, config, horizon: see `plain_world`.
        scored_only: ask for nothing that `config`'s utilities are not made of.
    """
    specs = {m.name: m for m in model.config.modalities}
    window = model.config.window

    def encoded(name: str, values: Array) -> Array:
        return tokens.encode_modalities([specs[name]], stats, {name: values})[name]

    def decoded(name: str, outputs: dict) -> Array:
        return tokens.decode_prediction(specs[name], stats[name], outputs[name])

    def past(context: context_lib.Context) -> dict[str, Placed]:
        """States until now, actions before."""
        slots = jnp.arange(min(config.history + 1, window))
        states = encoded("states", context.states[slots])
        shown = {"states": Placed(states, slots, slots <= context.slot)}
        if config.history > 0:
            actions = encoded("actions", context.actions[slots[:-1]])
            shown["actions"] = Placed(actions, slots[:-1], slots[:-1] < context.slot)
        return shown

    def policy(context: context_lib.Context, target: Array) -> distributions.TanhNormal:
        slots, always = jnp.arange(window), jnp.ones(window, bool)
        returns = encoded("returns", jnp.broadcast_to(target, (window, 1)))
        shown = past(context) | {"returns": Placed(returns, slots, always)}
        asked = {"actions": horizon_slots(context, horizon, window)}
        return model.query(params, shown, None, asked)["actions"]

    def rollout(context: context_lib.Context, actions: Array) -> Rollout:
        slots = horizon_slots(context, horizon, window)
        counts = jnp.arange(horizon) < horizon_length(context, config, horizon)
        own = {"actions": Placed(encoded("actions", actions), slots, counts)}
        asked = questions(slots, config.guidance if scored_only else None)
        outcomes = {name: asked.pop(name) for name in ("rewards", "returns") if name in asked}
        if config.readout == "fd":
            outputs = ask(context, own, asked | outcomes)
        else:
            outputs = ask(context, own, {"states": slots[1:]})
            if horizon > 1:
                own["states"] = Placed(outputs["states"], slots[1:], counts[1:])
            outputs |= ask(context, own, outcomes)
        read = {name: decoded(name, outputs) for name in outputs}
        return Rollout(
            states(context, len(actions), read.get("states")),
            *(_over_horizon(read.get(m), len(actions), horizon) for m in ("rewards", "returns")),
        )

    def ask(
        context: context_lib.Context, own: dict[str, Placed], asked: dict[str, Array]
    ) -> dict[str, Array]:
        asked = {name: slots for name, slots in asked.items() if len(slots)}
        return model.query(params, past(context), own, asked) if asked else {}

    def states(context: context_lib.Context, count: int, later: Array | None) -> Array:
        """Join the present state with the predicted ones, [N, h, S]."""
        features = specs["states"].features
        now = jnp.broadcast_to(context.states[context.slot], (count, 1, features))
        later = jnp.zeros((count, horizon - 1, features)) if later is None else later
        return jnp.concatenate([now, later], axis=1)

    return World(policy, rollout)


def questions(slots: Array, guidance: str | None = None) -> dict[str, Array]:
    """List what to predict, modality -> slots.

    Args:
        slots: of the horizon, [h].
        guidance: leave out what utilities under it are not made of: the last reward, under
            "returns" states, under "critic" return tokens. None: predict everything.
    """
    if guidance is None:
        return {"states": slots[1:], "rewards": slots, "returns": slots}
    values = {"returns": slots} if guidance == "returns" else {"states": slots[1:]}
    return {"rewards": slots[:-1], **values}


def _over_horizon(x: Array | None, count: int, horizon: int) -> Array:
    """Fill predictions [N, n, 1] of the first n steps with zeros: [N, h]."""
    if x is None:
        return jnp.zeros((count, horizon))
    return jnp.pad(x[..., 0], [(0, 0), (0, horizon - x.shape[1])])


def with_plan(context: context_lib.Context, plan: Array) -> context_lib.Context:
    """Write planned actions, [h, A], into the window from the present slot on."""
    ahead = jnp.arange(context.actions.shape[0]) - context.slot
    planned = plan[jnp.clip(ahead, 0, plan.shape[0] - 1)]
    return context.replace(actions=jnp.where((ahead < 0)[:, None], context.actions, planned))


def read(
    context: context_lib.Context, predicted: Mapping[str, Array], config: PlanConfig, horizon: int
) -> Rollout:
    """Read the horizon out of whole windows, modality -> [N, T, D]."""
    slots = horizon_slots(context, horizon, context.states.shape[0])
    states = predicted["states"][:, slots]
    if config.current_state == "true":
        states = states.at[:, 0].set(context.states[context.slot])
    return Rollout(states, predicted["rewards"][:, slots, 0], predicted["returns"][:, slots, 0])
