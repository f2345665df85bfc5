"""Ways of acting in evaluations: their settings in a configuration, and in a row of results."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from ml_collections import config_dict

from mtm_jax.agents import acting, planner, pretrained, prompted
from mtm_jax.agents.actor import Actor
from mtm_jax.config import DEFAULT_PROMPT, PlanConfig, PromptConfig
from mtm_jax.planning import roles


def of_method(method: str, config: config_dict.ConfigDict) -> PlanConfig | None:
    """Collect the settings of a method's plans; None where it does not plan."""
    if method not in planner.GUIDANCE:
        return None
    return planner.plan_config(method, **settings_of_method(method, config))


def settings_of_method(method: str, config: config_dict.ConfigDict) -> dict[str, Any]:
    """Collect fields of a `PlanConfig`: those of all plans and those of this method."""
    own = dict(config[method])
    if method == "m3pc_0" and own["spread"] is None:
        own["spread"] = config.m3pc_m.spread
    return {**config.plan, **own}


def prompt_of_method(method: str, settings: Mapping[str, Any]) -> PromptConfig | None:
    """Collect how a method acts by its prompt; None where it plans.

    Raises:
        UserError: a setting is out of range.
    """
    given = PromptConfig(**settings)
    if method not in roles.POLICIES:
        return None
    if method == "bc":  # has no part in what concerns returns
        given = dataclasses.replace(
            given, **{k: getattr(DEFAULT_PROMPT, k) for k in prompted.OF_RETURNS}
        )
    return given


def describe_prompt(prompt: PromptConfig) -> dict[str, Any]:
    """Say for a row of results how a method acted by its prompt."""
    return {"action": prompt.action, "prompt": dataclasses.asdict(prompt)}


def actor(
    agent: pretrained.Pretrained,
    method: str,
    plan: PlanConfig | None,
    evaluation: config_dict.ConfigDict,
    world: pretrained.Pretrained | None = None,
    prompt: PromptConfig | None = None,
) -> Actor:
    """Make what acts in an evaluation, without exploration.

    Args:
        agent: the pretrained model.
        method: one of `acting.METHODS`.
        plan: of a method that plans.
        evaluation: seed, of all draws, and target_fraction.
        world: another model, which predicts what candidates lead to.
        prompt: of a method that acts by one.
    """
    return acting.make_actor(
        *(agent, method),
        plan=plan,
        prompt=prompt,
        target_fraction=evaluation.target_fraction,
        seed=evaluation.seed,
        world=world if plan else None,
    )


def describe(plan: PlanConfig, world: str, agent: pretrained.Pretrained) -> dict[str, Any]:
    """Say for a row of results how a method planned, and by which critic."""
    critic = agent.critic if planner.uses_critic(plan) else None
    return {
        "plan": dataclasses.asdict(planner.with_discount(plan, agent)),
        "action": "expectation",
        **({"critic": dataclasses.asdict(critic.config) | {"step": critic.step}} if critic else {}),
        **({"world": pathlib.Path(world).name} if world else {}),
    }
