"""Acting by two-stage inference (MTM section 4.4); see `planning.two_stage`."""

from __future__ import annotations

import functools

import jax
from jax import Array

from mtm_jax.agents import pretrained
from mtm_jax.agents.actor import Actor, Memory
from mtm_jax.agents.pretrained import Pretrained
from mtm_jax.config import PlanConfig, PromptConfig
from mtm_jax.errors import UserError
from mtm_jax.models.trajectory_model import Model
from mtm_jax.planning import context as context_lib
from mtm_jax.planning import roles, two_stage

METHOD = "two_stage"


def by_two_stages(
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
    """Act by predicting states first and the action from them; see `acting.make_actor`.

    The history is at most two steps shorter than the window: there must be a later state.

    Raises:
        UserError: the model lacks a modality or its window a slot; the data have no returns to ask
            for; or something was given for which this method has no use.
    """
    given = {"a plan": plan, "a world model": world, "a prompt": prompt, "exploration": explore}
    useless = [what for what, value in given.items() if value]
    if useless:
        raise UserError(
            f"{method} has its own two prompts, and {useless[0]} was asked for; leave it out"
        )
    pretrained.require_modalities(agent, method, ("states", "returns", "actions"))
    window = agent.model.config.window
    if window < 2:
        raise UserError(f"{method} needs a later state, and this model's window is a single step")
    target = agent.target_token(target_fraction)

    def decide(memory: Memory) -> Array:
        return choose(agent.model, agent.params, agent.stats, memory.contexts, target)

    return Actor(agent, min(agent.history, window - 2), decide)


@functools.partial(jax.jit, static_argnames="model")
def choose(
    model: Model, params: dict, stats: roles.Stats, contexts: context_lib.Context, target: Array
) -> Array:
    """Choose actions for E environments, [E, A]; see `two_stage.act`."""
    return jax.vmap(lambda ctx: two_stage.act(model, params, stats, ctx, target))(contexts)
