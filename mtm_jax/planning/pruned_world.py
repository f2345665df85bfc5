"""The world of a plan, computed only where it is needed: few visible tokens, few predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from mtm_jax import distributions, tokens
from mtm_jax.config import PlanConfig
from mtm_jax.models.pruned import Placed
from mtm_jax.models.trajectory_model import Model
from mtm_jax.planning import context as context_lib
from mtm_jax.planning import worlds
from mtm_jax.types import ModalitySpec


def pruned_world(
    model: Model,
    params: dict,
    stats: worlds.Stats,
    config: PlanConfig,
    horizon: int,
    scored_only: bool = False,
) -> worlds.World:
    """Build the world of `worlds.plain_world` from `Model.query`; the numbers are the same.

    Args:
        model, params, stats, config, horizon: see `worlds.plain_world`.
        scored_only: predict only what the utilities of `config` depend on.
    """
    episode, window = _Episode(model, params, stats, config.history), model.config.window
    questions = _QUESTIONS[config.guidance if scored_only else None]
    readout = _READOUTS[config.readout]

    def policy(context: context_lib.Context, target: Array) -> distributions.TanhNormal:
        slots, present = jnp.arange(window), jnp.ones(window, bool)
        returns = episode.encode("returns", jnp.broadcast_to(target, (window, 1)))
        shown = episode.past(context) | {"returns": Placed(returns, slots, present)}
        asked = {"actions": worlds.horizon_slots(context, horizon, window)}
        return model.query(params, shown, None, asked)["actions"]

    def rollout(context: context_lib.Context, actions: Array) -> worlds.Rollout:
        slots = worlds.horizon_slots(context, horizon, window)
        present = jnp.arange(horizon) < worlds.horizon_length(context, config, horizon)
        planned = Placed(episode.encode("actions", actions), slots, present)

        def ask(own: dict[str, Placed], asked: dict[str, Array]) -> dict[str, Array]:
            return episode.ask(context, own, asked)

        asked = questions(slots)
        if config.expects_falls:
            asked["states"] = slots[1:]
        outputs = readout(ask, planned, asked)
        predicted = {name: episode.decode(name, output) for name, output in outputs.items()}
        states = _states(context, len(actions), horizon, predicted.get("states"))
        rewards, returns = (
            _over_horizon(predicted.get(m), len(actions), horizon) for m in ("rewards", "returns")
        )
        return worlds.Rollout(states, rewards, returns)

    return worlds.World(policy, rollout)


class _Episode(NamedTuple):
    """A model that is asked for hidden tokens, given what an episode has shown so far."""

    model: Model
    params: dict
    stats: worlds.Stats
    history: int

    def ask(
        self, context: context_lib.Context, own: dict[str, Placed], asked: dict[str, Array]
    ) -> dict[str, Array]:
        """Predict the tokens at `asked`, modality -> slots, given the `own` of each candidate."""
        asked = {name: slots for name, slots in asked.items() if len(slots)}
        return self.model.query(self.params, self.past(context), own, asked) if asked else {}

    def past(self, context: context_lib.Context) -> dict[str, Placed]:
        """States up to now and the actions before."""
        slots = jnp.arange(min(self.history + 1, self.model.config.window))
        states = self.encode("states", context.states[slots])
        shown = {"states": Placed(states, slots, slots <= context.slot)}
        if self.history > 0:
            actions = self.encode("actions", context.actions[slots[:-1]])
            shown["actions"] = Placed(actions, slots[:-1], slots[:-1] < context.slot)
        return shown

    def encode(self, name: str, values: Array) -> Array:
        """Turn raw values of one modality into tokens."""
        return tokens.encode_modalities([self._spec(name)], self.stats, {name: values})[name]

    def decode(self, name: str, output: Array) -> Array:
        """Turn predicted tokens of one modality into raw values."""
        return tokens.decode_prediction(self._spec(name), self.stats[name], output)

    def _spec(self, name: str) -> ModalitySpec:
        return next(m for m in self.model.config.modalities if m.name == name)


# What to predict, modality -> slots, for a horizon at `slots` [h]: everything, or, by
# `PlanConfig.guidance`, what utilities depend on. The last reward is no part of any utility.
_QUESTIONS: Mapping[str | None, Callable[[Array], dict[str, Array]]] = {
    None: lambda slots: {"states": slots[1:], "rewards": slots, "returns": slots},
    "returns": lambda slots: {"rewards": slots[:-1], "returns": slots},
    "value": lambda slots: {"rewards": slots[:-1], "states": slots[1:]},
    "critic": lambda slots: {"rewards": slots[:-1], "states": slots[1:]},
    "none": lambda slots: {},
}

# (own tokens of the candidates, modality -> slots) -> outputs at these slots.
_Ask = Callable[[dict[str, Placed], dict[str, Array]], dict[str, Array]]


def _one_pass(ask: _Ask, planned: Placed, asked: dict[str, Array]) -> dict[str, Array]:
    """Read everything from the forward-dynamics pass, as the released planner does (F5)."""
    return ask({"actions": planned}, asked)


def _two_passes(ask: _Ask, planned: Placed, asked: dict[str, Array]) -> dict[str, Array]:
    """Show the predicted states in a second pass and read rewards and returns there."""
    later = planned.slots[1:]
    own, outputs = {"actions": planned}, ask({"actions": planned}, {"states": later})
    if "states" in outputs:
        own["states"] = Placed(outputs["states"], later, planned.present[1:])
    return outputs | ask(own, {m: asked[m] for m in ("rewards", "returns") if m in asked})


# By `PlanConfig.readout`: the passes that a rollout is read from.
_READOUTS = {"fd": _one_pass, "rp": _two_passes}


def _states(context: context_lib.Context, count: int, horizon: int, later: Array | None) -> Array:
    """Join the present state with the predicted ones, zero where there are none: [N, h, S]."""
    features = context.states.shape[-1]
    now = jnp.broadcast_to(context.states[context.slot], (count, 1, features))
    later = jnp.zeros((count, horizon - 1, features)) if later is None else later
    return jnp.concatenate([now, later], axis=1)


def _over_horizon(x: Array | None, count: int, horizon: int) -> Array:
    """Pad predictions [N, n, 1] of the first n steps with zeros: [N, h]."""
    if x is None:
        return jnp.zeros((count, horizon))
    return jnp.pad(x[..., 0], [(0, 0), (0, horizon - x.shape[1])])
