"""The model as a world to plan in: a policy that proposes actions, and what these lead to.

`plain_world` computes both by full forward passes of the model, as the papers describe them.
`pruned_world.pruned_world` gives the same numbers at a fraction of the cost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from mtm_jax import distributions, masks, tokens
from mtm_jax.config import PlanConfig
from mtm_jax.models.trajectory_model import Model
from mtm_jax.planning import context as context_lib
from mtm_jax.planning import roles
from mtm_jax.types import Visible

Stats = Mapping[str, tokens.Stats]


class Rollout(NamedTuple):
    """What candidates lead to, in raw units; entry n belongs to episode step t + n.

    A world that predicts only what utilities need fills the rest with zeros.
    """

    states: Array  # [N, h, S], the first is the present state
    rewards: Array  # [N, h], of the actions
    return_tokens: Array  # [N, h], average return to go


class World(NamedTuple):
    """The two functions that a planner asks, for one environment.

    policy(context, target) -> TanhNormal [h, A], the actions of the horizon.
    rollout(context, actions) -> Rollout, given actions [N, h, A] in [-1, 1].
    """

    policy: Callable[[context_lib.Context, Array], distributions.TanhNormal]
    rollout: Callable[[context_lib.Context, Array], Rollout]


def horizon_slots(context: context_lib.Context, horizon: int, window: int) -> Array:
    """Window slots of the horizon's steps, [h]; steps beyond the window repeat its last slot."""
    return jnp.minimum(context.slot + jnp.arange(horizon), window - 1)


def horizon_length(context: context_lib.Context, config: PlanConfig, horizon: int) -> Array:
    """Steps of the horizon up to slot history + horizon - 1, with which every plan ends: []."""
    return jnp.minimum(horizon, config.history + config.horizon - context.slot)


def plain_world(
    model: Model, params: dict, stats: Stats, config: PlanConfig, horizon: int
) -> World:
    """Build a world from full forward passes of the model.

    Args:
        model, params, stats: the pretrained model.
        config: of the plan.
        horizon: h, static; longer at the start of an episode, when there is little history.
    """
    window = model.config.window
    readout, present_state = _READOUTS[config.readout], _PRESENT_STATES[config.current_state]

    def policy(context: context_lib.Context, target: Array) -> distributions.TanhNormal:
        values = context_lib.window_values(context, target)
        outputs = roles.predict(model, params, stats, values, "rcbc", context.slot)
        slots = horizon_slots(context, horizon, window)
        return jax.tree.map(lambda x: x[slots], outputs["actions"])

    def rollout(context: context_lib.Context, actions: Array) -> Rollout:
        end = context.slot + horizon_length(context, config, horizon)
        visible = masks.prompt("fd", context.slot, window)
        visible["actions"] = jnp.arange(window) < end

        def one(candidate: Array) -> dict[str, Array]:
            planned = _with_actions(context, candidate)
            values = context_lib.window_values(planned, jnp.zeros(()))
            return readout(show, values, visible, context.slot, end)

        predicted, slots = jax.vmap(one)(actions), horizon_slots(context, horizon, window)
        states = present_state(predicted["states"][:, slots], context.states[context.slot])
        rewards, returns = (predicted[m][:, slots, 0] for m in ("rewards", "returns"))
        return Rollout(states, rewards, returns)

    def show(values: Mapping[str, Array], visible: Visible) -> dict[str, Array]:
        return roles.decode(model, stats, roles.show(model, params, stats, values, visible))

    return World(policy, rollout)


def _with_actions(context: context_lib.Context, actions: Array) -> context_lib.Context:
    """Write planned actions, [h, A], into the window from the present slot on."""
    ahead = jnp.arange(context.actions.shape[0]) - context.slot
    planned = actions[jnp.clip(ahead, 0, actions.shape[0] - 1)]
    return context.replace(actions=jnp.where((ahead < 0)[:, None], context.actions, planned))


# (values, visible) -> predictions; each of these is modality -> [T, D] or [T].
_Show = Callable[[Mapping[str, Array], Visible], dict[str, Array]]


def _one_pass(
    show: _Show, values: Mapping[str, Array], visible: Visible, slot: Array, end: Array
) -> dict[str, Array]:
    """Read everything from the forward-dynamics pass, as the released planner does (F5)."""
    return show(values, visible)


def _two_passes(
    show: _Show, values: Mapping[str, Array], visible: Visible, slot: Array, end: Array
) -> dict[str, Array]:
    """Show the predicted states in a second pass and read rewards and returns there."""
    predicted = show(values, visible)
    slots = jnp.arange(visible["states"].shape[0])
    states = jnp.where((slots > slot)[:, None], predicted["states"], values["states"])
    again = show({**values, "states": states}, {**visible, "states": slots < end})
    return predicted | {m: again[m] for m in ("rewards", "returns")}


# By `PlanConfig.readout`: the passes that a rollout is read from.
_READOUTS = {"fd": _one_pass, "rp": _two_passes}

# By `PlanConfig.current_state`: (predicted states [N, h, S], present state [S]) -> [N, h, S].
_PRESENT_STATES = {
    "true": lambda states, present: states.at[:, 0].set(present),
    "reconstructed": lambda states, present: states,
}
