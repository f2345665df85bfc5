"""The actor: what every method of acting becomes, a policy for many environments at once."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax import Array

from mtm_jax.agents import inputs
from mtm_jax.agents.pretrained import Pretrained
from mtm_jax.errors import UserError
from mtm_jax.planning import backward, forward
from mtm_jax.planning import context as context_lib


class Memory(NamedTuple):
    """What an actor knows of the episodes that run; a value that goes in and comes out."""

    contexts: context_lib.Context  # of each environment, leading axis E
    decisions: int  # made before the present one, which therefore draws from a key of its own


def _nothing_to_explain(memory: Memory) -> forward.Plan:
    """Refuse to explain the decisions of a method that makes no plans."""
    raise UserError("this actor does not plan, so it has no plan to explain; use m3pc_m or m3pc_q")


@dataclasses.dataclass(frozen=True)
class Actor:
    """A policy for E environments, which keeps nothing itself.

        memory = actor.start(obs)
        actions = actor.decide(memory)
        memory = actor.observe(memory, actions, rewards, next_obs)

    Attributes:
        agent: the model that acts.
        history: past steps that the memory keeps in view.
        decide: memory -> actions [E, A] in [-1, 1] for the present observations.
        explain: memory -> the plans behind `decide`, or the decisions of an actor that has goals; a
            leading axis E on every field.
    """

    agent: Pretrained
    history: int
    decide: Callable[[Memory], Array | np.ndarray]
    explain: Callable[[Memory], forward.Plan | backward.Decision] = _nothing_to_explain

    def start(self, obs: np.ndarray, decisions: int = 0) -> Memory:
        """Begin episodes.

        Args:
            obs: the first observations, [E, S].
            decisions: made in earlier episodes, so that this one has draws of its own.

        Raises:
            UserError: an observation cannot be read.
        """
        obs = inputs.observations(obs, self.agent)
        action_dim, window = len(self.agent.info.action_low), self.agent.model.config.window
        return Memory(begin(obs, action_dim=action_dim, window=window), decisions)

    def observe(
        self, memory: Memory, actions: np.ndarray, rewards: np.ndarray, obs: np.ndarray
    ) -> Memory:
        """Remember a step that is over.

        Args:
            memory: before the step.
            actions: as executed, [E, A] in [-1, 1].
            rewards: of these actions, [E].
            obs: what followed, [E, S].

        Raises:
            UserError: an observation or a reward cannot be read.
        """
        obs, rewards = inputs.observations(obs, self.agent), inputs.rewards(rewards)
        contexts = extend(memory.contexts, actions, rewards, obs, history=self.history)
        return Memory(contexts, memory.decisions + 1)


@functools.partial(jax.jit, static_argnames=("action_dim", "window"))
def begin(obs: Array, *, action_dim: int, window: int) -> context_lib.Context:
    """Begin the windows of E episodes; see `context.begin`."""
    return jax.vmap(lambda o: context_lib.begin(o, action_dim, window))(obs)


@functools.partial(jax.jit, static_argnames="history")
def extend(
    contexts: context_lib.Context, actions: Array, rewards: Array, obs: Array, *, history: int
) -> context_lib.Context:
    """Add a step to the windows of E episodes; see `context.extend`."""
    add = functools.partial(context_lib.extend, history=history)
    return jax.vmap(add)(contexts, actions, rewards, obs)
