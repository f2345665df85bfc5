"""Acting by a prompt: behaviour cloning, conditioned on a return or not (MTM section 3.3)."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mtm_jax.agents.actor import Actor, Memory
from mtm_jax.agents.pretrained import Pretrained
from mtm_jax.config import PlanConfig
from mtm_jax.errors import UserError
from mtm_jax.models.trajectory_model import Model
from mtm_jax.planning import context as context_lib
from mtm_jax.planning import roles


def by_prompt(
    agent: Pretrained,
    method: str,
    *,
    plan: PlanConfig | None = None,
    target_fraction: float = 1.0,
    seed: int = 0,
    explore: bool = False,
    world: Pretrained | None = None,
) -> Actor:
    """Act by the prompt "rcbc", which asks for a return, or "bc"; see `acting.make_actor`.

    Raises:
        UserError: the data have no returns to ask for, the model has no distribution to draw from,
            or a plan or a world model was given, for which this method has no use.
    """
    if plan is not None or world is not None:
        given = "a plan" if plan is not None else "a world model"
        raise UserError(f"{method} does not plan, and {given} was given; leave it out")
    if explore:
        require_distribution(agent)
    target = agent.target_token(target_fraction) if method == "rcbc" else jnp.zeros(())
    key = jax.random.key(seed)

    def decide(memory: Memory) -> np.ndarray:
        drawn_with = jax.random.fold_in(key, memory.decisions) if explore else None
        model = agent.model, agent.params, agent.stats
        return np.asarray(choose(*model, memory.contexts, target, drawn_with, prompt=method))

    return Actor(agent, agent.history, decide)


@functools.partial(jax.jit, static_argnames=("model", "prompt"))
def choose(
    model: Model,
    params: dict,
    stats: roles.Stats,
    contexts: context_lib.Context,
    target: Array,
    key: Array | None,
    *,
    prompt: str,
) -> Array:
    """Choose actions for E environments, [E, A]; see `roles.act`."""
    act = functools.partial(roles.act, model, params, stats, prompt=prompt)
    if key is None:
        return jax.vmap(lambda context: act(context, target))(contexts)
    environments = contexts.slot.shape[0]
    keys = key[None] if environments == 1 else jax.random.split(key, environments)
    return jax.vmap(lambda context, key: act(context, target, key=key))(contexts, keys)


def require_distribution(agent: Pretrained) -> None:
    """Refuse a model without a distribution of actions.

    Raises:
        UserError: it names the model's head.
    """
    head = next(m.head for m in agent.model.config.modalities if m.name == "actions")
    if head != "tanh_normal":
        raise UserError(
            f"this model predicts actions, not their distribution (head {head!r}), so there is "
            "nothing to draw from; leave the seed out"
        )
