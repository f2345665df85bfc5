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
from mtm_jax.models.trajectory_model import Model, Placed
from mtm_jax.planning import context as context_lib
from mtm_jax.planning import roles
from mtm_jax.types import ModalitySpec

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
    asker, window = _Asker(model, params, stats, config.history), model.config.window

    def policy(context: context_lib.Context, target: Array) -> distributions.TanhNormal:
        slots, always = jnp.arange(window), jnp.ones(window, bool)
        returns = asker.encode("returns", jnp.broadcast_to(target, (window, 1)))
        shown = asker.past(context) | {"returns": Placed(returns, slots, always)}
        asked = {"actions": horizon_slots(context, horizon, window)}
        return model.query(params, shown, None, asked)["actions"]

    def rollout(context: context_lib.Context, actions: Array) -> Rollout:
        slots = horizon_slots(context, horizon, window)
        counts = jnp.arange(horizon) < horizon_length(context, config, horizon)
        own = {"actions": Placed(asker.encode("actions", actions), slots, counts)}
        asked = questions(slots, config.guidance if scored_only else None)
        outcomes = {name: asked.pop(name) for name in ("rewards", "returns") if name in asked}
        if config.readout == "fd":
            outputs = asker.ask(context, own, asked | outcomes)
        else:
            outputs = asker.ask(context, own, {"states": slots[1:]})
            if horizon > 1:
                own["states"] = Placed(outputs["states"], slots[1:], counts[1:])
            outputs |= asker.ask(context, own, outcomes)
        read = {name: asker.decode(name, output) for name, output in outputs.items()}
        return Rollout(
            _states(context, len(actions), horizon, read.get("states")),
            *(_over_horizon(read.get(m), len(actions), horizon) for m in ("rewards", "returns")),
        )

    return World(policy, rollout)


class _Asker(NamedTuple):
    """Asks a model for hidden tokens, given what an episode has shown so far."""

    model: Model
    params: dict
    stats: Stats
    history: int

    def ask(
        self, context: context_lib.Context, own: dict[str, Placed], asked: dict[str, Array]
    ) -> dict[str, Array]:
        """Predict the tokens at `asked`, modality -> slots, behind those of each candidate."""
        asked = {name: slots for name, slots in asked.items() if len(slots)}
        return self.model.query(self.params, self.past(context), own, asked) if asked else {}

    def past(self, context: context_lib.Context) -> dict[str, Placed]:
        """States until now, actions before."""
        slots = jnp.arange(min(self.history + 1, self.model.config.window))
        states = self.encode("states", context.states[slots])
        shown = {"states": Placed(states, slots, slots <= context.slot)}
        if self.history > 0:
            actions = self.encode("actions", context.actions[slots[:-1]])
            shown["actions"] = Placed(actions, slots[:-1], slots[:-1] < context.slot)
        return shown

    def encode(self, name: str, values: Array) -> Array:
        """Raw values of one modality to tokens."""
        return tokens.encode_modalities([self._spec(name)], self.stats, {name: values})[name]

    def decode(self, name: str, output: Array) -> Array:
        """Predicted tokens of one modality to raw values."""
        return tokens.decode_prediction(self._spec(name), self.stats[name], output)

    def _spec(self, name: str) -> ModalitySpec:
        return next(m for m in self.model.config.modalities if m.name == name)


def _states(context: context_lib.Context, count: int, horizon: int, later: Array | None) -> Array:
    """Join the present state with the predicted ones, zero where there are none: [N, h, S]."""
    features = context.states.shape[-1]
    now = jnp.broadcast_to(context.states[context.slot], (count, 1, features))
    later = jnp.zeros((count, horizon - 1, features)) if later is None else later
    return jnp.concatenate([now, later], axis=1)


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
