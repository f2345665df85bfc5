"""Backward M3PC: act towards goals, by the path to them and then the action that follows it.

At every step of an episode, given its recent history and the next goal (M3PC figure 3b):

1. Aim: lay the window so that the goal has the slot of its step.
2. In-paint the dimensions of the goal that are not given, if there are any.
3. Path inference: under the prompt "pi" the model fills in the states on the way.
4. Inverse dynamics: under the prompt "id" it says which action follows this path.

The baseline reads the action from the pass of number 3 instead, of which prompt it has the name
"goal". Functions are written for one environment; `decide` is vmapped by the caller.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from mtm_jax import masks
from mtm_jax.config import GoalConfig
from mtm_jax.models.trajectory_model import Model
from mtm_jax.planning import context as context_lib
from mtm_jax.planning import roadmap as roadmap_lib
from mtm_jax.planning import roles


class Waypoints(NamedTuple):
    """Goals as arrays, in the order of their steps."""

    states: Array  # [W, S] raw; dimensions that are not given have no meaning
    steps: Array  # [W] int32, ascending, the step of the episode at which to be there
    given: Array  # [W, S] bool, the dimensions that matter


class Aim(NamedTuple):
    """A window with a goal in it."""

    context: context_lib.Context
    state: Array  # [S] raw, the goal
    given: Array  # [S] bool
    slot: Array  # [] int, of the goal; later than that of the present


class Decision(NamedTuple):
    """An action towards a goal, with what led to it."""

    action: Array  # [A] in [-1, 1]
    path: Array  # [T, S] raw, what the inverse dynamics saw, or for "goal_mask" would see
    goal: Array  # [S] raw, what is not given is in-painted
    slot: Array  # [] int, of the present
    goal_slot: Array  # [] int


def decide(
    model: Model,
    params: dict,
    stats: roles.Stats,
    context: context_lib.Context,
    waypoints: Waypoints | roadmap_lib.Roadmap,
    method: str,
    config: GoalConfig,
    complete: bool = False,
) -> Decision:
    """Choose an action for one environment.

    Args:
        model, params, stats: the pretrained model.
        context: the window of recent history.
        waypoints: the goals of the episode, or a map of the data on which it heads for one.
        method: "m3pc_goal" (backward M3PC) or "goal_mask" (one pass under one mask).
        config: how to aim.
        complete: every dimension of every goal is given, so that nothing is in-painted.
    """
    if isinstance(waypoints, roadmap_lib.Roadmap):
        aimed = aim_along(context, waypoints)
    else:
        aimed = aim(context, waypoints, config)
    passes = Passes(model, params, stats)
    if not complete:
        aimed = inpaint(passes, aimed, config.inpainting)
    outputs = passes.to_goal(aimed)
    path = PATHS[config.path](aimed, passes.states(outputs))
    path, here = _join(aimed, path), aimed.context.slot
    if method == "m3pc_goal":
        arguments = path, aimed.context.actions, here
        action = roles.inverse_dynamics(model, params, stats, *arguments)
    else:
        action = roles.action_at(model, stats, outputs, here)
    return Decision(action, path, aimed.state, here, aimed.slot)


def aim(context: context_lib.Context, waypoints: Waypoints, config: GoalConfig) -> Aim:
    """Choose the goal of the present step and lay the window so that it has a slot.

    It is the first goal that is at least `config.ahead` steps away; after the last one, that one.
    It stands as many slots behind the present as it is steps away, at least `config.ahead` and at
    most `config.reach`, and as much history stays in view as leaves room for it.
    """
    last = context.states.shape[0] - 1
    reach = last if config.reach is None else config.reach
    chosen = jnp.searchsorted(waypoints.steps, context.t + config.ahead)
    chosen = jnp.minimum(chosen, len(waypoints.steps) - 1)
    distance = jnp.clip(waypoints.steps[chosen] - context.t, config.ahead, reach)
    return _lay(context, waypoints.states[chosen], waypoints.given[chosen], distance)


def aim_along(context: context_lib.Context, roadmap: roadmap_lib.Roadmap) -> Aim:
    """Choose the subgoal on the shortest path from the present state; see `aim`."""
    goal = roadmap_lib.head_for(roadmap, context.states[context.slot])
    return _lay(context, goal, jnp.ones(goal.shape, bool), roadmap.stride)


def _lay(context: context_lib.Context, state: Array, given: Array, distance: Array) -> Aim:
    """Lay the window so that the goal has a slot."""
    slot = jnp.minimum(context.slot, context.states.shape[0] - 1 - distance)
    return Aim(context_lib.move(context, slot), state, given, slot + distance)


def inpaint(passes: Passes, aimed: Aim, rounds: int) -> Aim:
    """Fill in the dimensions of a goal that are not given, [S].

    At first they are what the model expects at that step without a goal. Every round shows it the
    goal so far and takes them from its reconstruction. The model reads a state as one token, so
    that no dimension of it can be hidden alone: this works with every model, while a visibility per
    dimension would need another input, and a training for it.
    """

    def fill(states: Array) -> Aim:
        return aimed._replace(state=jnp.where(aimed.given, aimed.state, states[aimed.slot]))

    filled = fill(passes.states(passes.without_goal(aimed)))
    for _ in range(rounds):
        filled = fill(passes.states(passes.to_goal(filled)))
    return filled


class Passes(NamedTuple):
    """The model under the prompts that lead to a goal."""

    model: Model
    params: dict
    stats: roles.Stats

    def without_goal(self, aimed: Aim) -> dict:
        """Show the history alone."""
        return self._show(aimed, "bc")

    def to_goal(self, aimed: Aim) -> dict:
        """Show the history and the goal."""
        return self._show(aimed, "pi")

    def states(self, outputs: dict) -> Array:
        """Read the states from the outputs of a pass, [T, S] raw."""
        return roles.decode(self.model, self.stats, outputs)["states"]

    def _show(self, aimed: Aim, prompt: str) -> dict:
        context, window = aimed.context, self.model.config.window
        states = context.states.at[aimed.slot].set(aimed.state)
        values = roles.fill(self.model, states, context.actions)
        visible = masks.prompt(prompt, context.slot, window, aimed.slot)
        return roles.show(self.model, self.params, self.stats, values, visible)


def _anchored(aimed: Aim, predicted: Array) -> Array:
    """Shift predicted states by the errors that they have at both ends of the path: [T, S].

    The model also reconstructs the states that it sees. How far it misses the present one and the
    goal is known, and in between its errors are much the same.
    """
    here, goal = aimed.context.slot, aimed.slot
    way = jnp.clip((jnp.arange(len(predicted)) - here) / (goal - here), 0.0, 1.0)[:, None]
    at_start = aimed.context.states[here] - predicted[here]
    at_goal = aimed.state - predicted[goal]
    return predicted + (1.0 - way) * at_start + way * at_goal


# By `GoalConfig.path`: (aim, predicted states [T, S]) -> states of the path.
PATHS = {"anchored": _anchored, "predicted": lambda aimed, predicted: predicted}


def _join(aimed: Aim, predicted: Array) -> Array:
    """Join the true states, the goal and, everywhere else, the predicted states: [T, S] (F19)."""
    slots = jnp.arange(len(predicted))[:, None]
    path = jnp.where(slots <= aimed.context.slot, aimed.context.states, predicted)
    return path.at[aimed.slot].set(aimed.state)
