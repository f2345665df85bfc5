"""The window of recent history that every decision reads: an immutable value, no hidden state."""

from __future__ import annotations

import flax.struct
import jax.numpy as jnp
from jax import Array


class Context(flax.struct.PyTreeNode):
    """The latest steps of one episode, in raw units, aligned to window slots.

    Slots 0..slot-1 hold finished steps, `slot` the current one, of which only the state is known.
    Values beyond that have no meaning and are never visible.
    """

    states: Array  # [T, S]
    actions: Array  # [T, A], rescaled to [-1, 1]
    rewards: Array  # [T, 1]
    slot: Array  # [] int32, i
    t: Array  # [] int32, the present step of the episode


def begin(obs: Array, action_dim: int, window: int) -> Context:
    """Start an episode with its first observation, [S], in slot 0."""
    return Context(
        states=jnp.zeros((window, obs.shape[-1])).at[0].set(obs),
        actions=jnp.zeros((window, action_dim)),
        rewards=jnp.zeros((window, 1)),
        slot=jnp.zeros((), jnp.int32),
        t=jnp.zeros((), jnp.int32),
    )


def extend(context: Context, action: Array, reward: Array, obs: Array, history: int) -> Context:
    """Append a finished step and the observation after it.

    The window fills from slot 0 on until it holds `history` past steps; then it slides.

    Args:
        context: the window before the step.
        action: taken in the current slot, [A] in [-1, 1].
        reward: of that action, [].
        obs: the next observation, [S].
        history: past steps to keep, at most T - 1.
    """
    slot = context.slot
    actions = context.actions.at[slot].set(action)
    rewards = context.rewards.at[slot].set(reward)
    full = slot >= history

    def slide(x: Array) -> Array:
        return jnp.where(full, jnp.roll(x, -1, axis=0), x)

    next_slot = jnp.minimum(slot + 1, history)
    return Context(
        states=slide(context.states).at[next_slot].set(obs),
        actions=slide(actions),
        rewards=slide(rewards),
        slot=next_slot.astype(slot.dtype),
        t=context.t + 1,
    )


def move(context: Context, slot: Array) -> Context:
    """Move the present to an earlier slot, or leave it where it is; the oldest steps are lost.

    Args:
        context: the window.
        slot: at most the present one, [] int.
    """
    by = slot - context.slot

    def slide(x: Array) -> Array:
        return jnp.roll(x, by, axis=0)

    return context.replace(
        states=slide(context.states),
        actions=slide(context.actions),
        rewards=slide(context.rewards),
        slot=slot,
    )


def window_values(context: Context, target: Array) -> dict[str, Array]:
    """Collect raw values of the window, modality -> [T, D], with `target` as every return token.

    Args:
        context: the window.
        target: return token to ask for, [] (an average return to go, not a sum).
    """
    return {
        "states": context.states,
        "returns": jnp.broadcast_to(target, context.rewards.shape),
        "actions": context.actions,
        "rewards": context.rewards,
    }
