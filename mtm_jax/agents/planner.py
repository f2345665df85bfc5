"""Acting by planning: forward M3PC (`planning.forward`) with a run's model and critic."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import Array

from mtm_jax.agents.actor import Actor, Memory
from mtm_jax.agents.pretrained import Pretrained, with_precision
from mtm_jax.config import PlanConfig, PromptConfig
from mtm_jax.errors import UserError
from mtm_jax.models.trajectory_model import Model
from mtm_jax.planning import compiled, forward
from mtm_jax.training import iql

# Method -> what guides it (M3PC table 1). m3pc_0 is the control of the others: what a planner gains
# over it comes from its guidance, and not from averaging actions of a narrower policy.
GUIDANCE = {"m3pc_0": "none", "m3pc_m": "returns", "m3pc_v": "value", "m3pc_q": "critic"}


def by_planning(
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
    """Act by model predictive control: draw candidates, predict what they lead to, choose.

    Args:
        agent: the pretrained model, with its critic under "m3pc_v" and "m3pc_q".
        method: one of GUIDANCE.
        plan: how to plan; the actor keeps its history, which may differ from the agent's.
        prompt: None; options of acting by a prompt are refused.
        target_fraction, seed, explore, world: see `acting.make_actor`.

    Raises:
        UserError: the plan has another guidance, the model cannot carry it out, or the world
            model is of another task.
    """
    if prompt is not None:
        raise UserError(f"{method} plans, and options of acting by a prompt were given; use rcbc")
    plan = plan_config(method) if plan is None else plan
    check_guidance(method, plan)
    critic = agent.require_critic() if uses_critic(plan) else None
    if plan.expects_falls and "end" not in critic.params:
        raise UserError(
            "this plan expects falls, and the run's critic does not know which states end an "
            "episode; train one with --config.critic.terminals=True, or use falls='ignored'"
        )
    agent = with_precision(agent, plan.compute_dtype)
    if world is not None:
        require_same_task(agent, world)
        world = with_precision(world, plan.compute_dtype)
    plan = with_discount(plan, agent)
    planner = compiled_planner(
        agent.model,
        plan,
        agent.info.max_episode_steps,
        value_of(plan),
        explore,
        None if world is None else world.model,
        end_probability if plan.expects_falls else None,
    )
    weights = compiled.Weights(
        agent.params,
        agent.stats,
        None if critic is None else (critic.params, critic.stats),
        None if world is None else (world.params, world.stats),
    )
    target = agent.target_token(target_fraction)
    decide, explain = bind(planner, plan, weights, target, jax.random.key(seed))
    return Actor(agent, plan.history, decide, explain)


@functools.lru_cache(maxsize=64)
def compiled_planner(
    model: Model,
    plan: PlanConfig,
    max_episode_steps: int,
    value: Callable | None,
    explore: bool,
    world_model: Model | None,
    ends: Callable | None,
) -> compiled.Planner:
    """Keep what `compiled.make_planner` compiles, for all actors that plan alike."""
    return compiled.make_planner(model, plan, max_episode_steps, value, explore, world_model, ends)


def bind(
    planner: compiled.Planner,
    plan: PlanConfig,
    weights: compiled.Weights,
    target: Array,
    key: Array,
) -> tuple[Callable[[Memory], np.ndarray], Callable[[Memory], forward.Plan]]:
    """Make `Actor.decide` and `Actor.explain` of a compiled planner."""

    def decide(memory: Memory) -> np.ndarray:
        drawn_with = jax.random.fold_in(key, memory.decisions)
        actions, sound = planner.act(weights, memory.contexts, target, drawn_with)
        if not np.all(sound):
            env = int(np.argmin(sound))
            plans = jax.tree.map(lambda x: np.asarray(x[env]), explain(memory))
            where = f"in environment {env} at step {int(memory.contexts.t[env])}"
            raise UserError(f"planning went wrong {where}: {diagnose(plans)}")
        return np.asarray(actions)

    def explain(memory: Memory) -> forward.Plan:
        contexts, drawn_with = memory.contexts, jax.random.fold_in(key, memory.decisions)
        full = bool((contexts.slot == plan.history).all())
        horizon = plan.horizon + (0 if full else plan.history)
        return planner.explain(weights, contexts, target, drawn_with, horizon=horizon)

    return decide, explain


def diagnose(plan: forward.Plan) -> str:
    """Say which candidate of one environment's plan has a utility that is not finite, and why."""
    candidate = int(np.argmin(np.isfinite(plan.utilities)))
    parts = {
        "action": plan.candidates[candidate].sum(-1),
        "predicted state": plan.rollout.states[candidate].sum(-1),
        # The reward of the last step has no part in the utility.
        "predicted reward": plan.rollout.rewards[candidate][: plan.length - 1],
        "value": plan.values[candidate],
    }
    counted = {name: x[: plan.length] for name, x in parts.items()}
    reasons = [
        f"its {name} of step {np.argmin(np.isfinite(x)) + 1} of the horizon is "
        f"{x[np.argmin(np.isfinite(x))]}"
        for name, x in counted.items()
        if not np.isfinite(x).all()
    ]
    return (
        f"the utility of candidate {candidate} of {len(plan.utilities)} is "
        f"{plan.utilities[candidate]}, because {reasons[0] if reasons else 'it is too large'}; "
        "the checkpoint of the model or of the critic is not usable"
    )


def require_same_task(agent: Pretrained, world: Pretrained) -> None:
    """Refuse a world model of other states, actions, window or episodes.

    Raises:
        UserError: it names what differs, with both values.
    """
    for what in ("env_id", "action_low", "max_episode_steps"):
        ours, theirs = getattr(agent.info, what), getattr(world.info, what)
        if ours != theirs:
            raise UserError(f"the world model's {what} is {theirs}, the policy's is {ours}")
    ours, theirs = agent.model.config.window, world.model.config.window
    if ours != theirs:
        raise UserError(f"the world model's window is {theirs} steps, the policy's is {ours}")


def with_discount(plan: PlanConfig, agent: Pretrained) -> PlanConfig:
    """Fill in the discount of a plan that names none: the one that its critic was trained with."""
    if plan.discount is not None or agent.critic is None:
        return plan
    return dataclasses.replace(plan, discount=agent.critic.config.discount)


def least_q(critic: tuple, states: Array, actions: Array) -> Array:
    """Value steps by the least member of the ensemble: [..., S] raw, [..., A] -> [...]."""
    params, stats = critic
    return iql.q_values(params, stats, states, actions).min(0)


def state_value(critic: tuple, states: Array, actions: Array) -> Array:
    """Value states, whatever the actions: [..., S] raw, [..., A] -> [...]."""
    params, stats = critic
    return iql.v_values(params, stats, states)


@functools.cache
def pessimistic_q(pessimism: float) -> Callable[[tuple, Array, Array], Array]:
    """Value steps by the mean of the ensemble less so many standard deviations over it."""

    def value(critic: tuple, states: Array, actions: Array) -> Array:
        params, stats = critic
        q = iql.q_values(params, stats, states, actions)
        return q.mean(0) - pessimism * q.std(0)

    return value


def end_probability(critic: tuple, states: Array) -> Array:
    """Say how probably states end the episode: [..., S] raw -> [...]."""
    params, stats = critic
    return iql.end_probabilities(params, stats, states)


# Guidance -> what a critic says of steps, where the guidance needs one.
VALUES: dict[str, Callable[[tuple, Array, Array], Array]] = {
    "value": state_value,
    "critic": least_q,
}


def value_of(plan: PlanConfig) -> Callable[[tuple, Array, Array], Array] | None:
    """Look up what a critic says of the steps of a plan; None where none is asked."""
    return VALUES.get(plan.guidance) if plan.pessimism is None else pessimistic_q(plan.pessimism)


def uses_critic(plan: PlanConfig) -> bool:
    """Say whether a plan asks a critic."""
    return plan.guidance in VALUES or plan.expects_falls


def check_guidance(method: str, plan: PlanConfig) -> None:
    """Refuse a plan whose guidance is not that of the method.

    Raises:
        UserError: it names both.
    """
    if plan.guidance != GUIDANCE[method]:
        raise UserError(
            f"{method} is guided by {GUIDANCE[method]!r} and this plan by {plan.guidance!r}; give "
            f"PlanConfig(guidance={GUIDANCE[method]!r}, ...)"
        )


def plan_config(method: str, **settings: Any) -> PlanConfig:
    """Build the settings of a planning method.

    Args:
        method: one of GUIDANCE.
        settings: fields of `PlanConfig` that differ from its defaults.

    Raises:
        UserError: the method does not plan, a field is unknown, or a value is out of range.
    """
    if method not in GUIDANCE:
        raise UserError(f"{method!r} does not plan; choose {' or '.join(GUIDANCE)}")
    known = {field.name for field in dataclasses.fields(PlanConfig)} - {"guidance"}
    unknown = sorted(set(settings) - known)
    if unknown:
        raise UserError(
            f"a plan has no {', '.join(unknown)}; its settings are {', '.join(sorted(known))}"
        )
    return PlanConfig(guidance=GUIDANCE[method], **settings)
