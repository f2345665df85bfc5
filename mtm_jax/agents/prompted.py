"""Acting by a prompt: behaviour cloning, conditioned on a return or not (MTM section 3.3)."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import Array

from mtm_jax.agents import pretrained
from mtm_jax.agents.actor import Actor, Memory
from mtm_jax.agents.pretrained import Pretrained, with_precision
from mtm_jax.config import DEFAULT_PROMPT, PlanConfig, PromptConfig
from mtm_jax.errors import UserError
from mtm_jax.models.trajectory_model import Model
from mtm_jax.planning import context as context_lib
from mtm_jax.planning import roles

# Options that concern the return to ask for.
OF_RETURNS = ("guidance", "returns_shown")


def by_prompt(
    agent: Pretrained,
    method: str,
    *,
    plan: PlanConfig | None = None,
    prompt: PromptConfig | None = None,
    target_fraction: float = 1.0,
    seed: int = 0,
    explore: bool = False,
    world: Pretrained | None = None,
) -> Actor:
    """Act by the prompt "rcbc", which asks for a return, or "bc"; see `acting.make_actor`.

    Args:
        agent: the pretrained model; the actor keeps it in the precision of `prompt`.
        method: "rcbc" or "bc".
        prompt: how to act; by default `PromptConfig()`.
        plan, target_fraction, seed, explore, world: see `acting.make_actor`.

    Raises:
        UserError: the data have no returns to ask for, the model lacks a modality, or a
            distribution where one is needed, or something was given for which this method has no
            use: a plan, a world model, options of returns under "bc".
    """
    if plan is not None or world is not None:
        given = "a plan" if plan is not None else "a world model"
        raise UserError(f"{method} does not plan, and {given} was given; leave it out")
    config = DEFAULT_PROMPT if prompt is None else prompt
    if explore:
        config = dataclasses.replace(config, action="sample")
    needed = ("states", "returns", "actions") if method == "rcbc" else ("states", "actions")
    pretrained.require_modalities(agent, method, needed)
    check(agent, method, config)
    agent = with_precision(agent, config.compute_dtype)
    target = agent.target_token(target_fraction) if method == "rcbc" else jnp.zeros(())
    key, draws = jax.random.key(seed), config.action == "sample"

    def decide(memory: Memory) -> Array:
        drawn_with = jax.random.fold_in(key, memory.decisions) if draws else None
        asked = memory.contexts, target, drawn_with
        model = agent.model, agent.params, agent.stats
        return choose(*model, *asked, prompt=method, config=config)

    return Actor(agent, agent.history, decide)


@functools.partial(jax.jit, static_argnames=("model", "prompt", "config"))
def choose(
    model: Model,
    params: dict,
    stats: roles.Stats,
    contexts: context_lib.Context,
    target: Array,
    key: Array | None,
    *,
    prompt: str,
    config: PromptConfig = DEFAULT_PROMPT,
) -> Array:
    """Choose actions for E environments, [E, A]; see `roles.act`."""
    act = functools.partial(roles.act, model, params, stats, prompt=prompt, config=config)
    if key is None:
        return jax.vmap(lambda context: act(context, target))(contexts)
    environments = contexts.slot.shape[0]
    keys = key[None] if environments == 1 else jax.random.split(key, environments)
    return jax.vmap(lambda context, key: act(context, target, key=key))(contexts, keys)


def check(agent: Pretrained, method: str, config: PromptConfig) -> None:
    """Refuse options that the model or the method cannot follow.

    Raises:
        UserError: it names the option, and the model's head where that is the cause.
    """
    for name in OF_RETURNS if method == "bc" else ():
        if getattr(config, name) != getattr(DEFAULT_PROMPT, name):
            raise UserError(
                f"bc asks for no return, so its prompt has no {name}, and it is "
                f"{getattr(config, name)!r}; leave it out, or act by rcbc"
            )
    if config.action == "sample":
        require_distribution(agent, "there is nothing to draw from; leave the seed out")
    if config.action == "mean":
        require_distribution(agent, "it has no mean; use action='mode'")
    if config.guidance != 1.0:
        require_distribution(agent, "there is nothing to guide before a tanh; use guidance=1.0")


def require_distribution(agent: Pretrained, advice: str) -> None:
    """Refuse a model without a distribution of actions.

    Raises:
        UserError: it names the model's head.
    """
    head = next(m.head for m in agent.model.config.modalities if m.name == "actions")
    if head != "tanh_normal":
        raise UserError(
            f"this model predicts actions, not their distribution (head {head!r}), so {advice}"
        )
