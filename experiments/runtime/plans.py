"""Plans of evaluations: their settings in a configuration, and in a row of results."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from ml_collections import config_dict

from mtm_jax.agents import acting, planner, pretrained
from mtm_jax.agents.actor import Actor
from mtm_jax.config import PlanConfig


def of_method(method: str, config: config_dict.ConfigDict) -> PlanConfig | None:
    """Collect the settings of a method's plans; None where it does not plan."""
    if method not in planner.GUIDANCE:
        return None
    return planner.plan_config(method, **config.plan, **config[method])


def actor(
    agent: pretrained.Pretrained,
    method: str,
    plan: PlanConfig | None,
    evaluation: config_dict.ConfigDict,
    world: pretrained.Pretrained | None = None,
) -> Actor:
    """Make what acts in an evaluation, by modes and expectations.

    Args:
        agent: the pretrained model.
        method: one of `acting.METHODS`.
        plan: of a method that plans.
        evaluation: seed, of the candidates, and target_fraction.
        world: another model, which predicts what candidates lead to.
    """
    return acting.make_actor(
        *(agent, method),
        plan=plan,
        target_fraction=evaluation.target_fraction,
        seed=evaluation.seed,
        world=world if plan else None,
    )


def describe(plan: PlanConfig, world: str, agent: pretrained.Pretrained) -> dict[str, Any]:
    """Say for a row of results how a method planned, and by which critic."""
    critic = agent.critic if plan.guidance == "critic" else None
    return {
        "plan": dataclasses.asdict(planner.with_discount(plan, agent)),
        "action": "expectation",
        **({"critic": dataclasses.asdict(critic.config) | {"step": critic.step}} if critic else {}),
        **({"world": pathlib.Path(world).name} if world else {}),
    }
