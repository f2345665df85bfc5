"""Programs of `experiments.bench` that decide: by the policy alone, and by planning.

Settings vary one at a time around those of `config.plan`. The decisions are made in the middle of
an episode, with a full window. Parameters are random; their values do not affect the time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import config_dict

from experiments.bench import operations, timing, training_steps, workloads
from mtm_jax import tokens
from mtm_jax.agents import goal_reaching, planner
from mtm_jax.config import CriticConfig, GoalConfig, ModelConfig, PlanConfig
from mtm_jax.models import trajectory_model as model
from mtm_jax.planning import backward, compiled, roles
from mtm_jax.planning import context as context_lib
from mtm_jax.training import iql

PLANNERS = ("m3pc_m", "m3pc_q")  # what is timed


class Point(NamedTuple):
    """One setting of a decision."""

    method: str  # "rcbc", "m3pc_goal", "m3pc_m" or "m3pc_q"
    candidates: int | None  # N; None without planning
    horizon: int | None
    environments: int
    pruned: bool | None


def points(config: config_dict.ConfigDict, width: int) -> list[list[Point]]:
    """List what to time at one width, in groups that share a loop.

    M3PC-M is timed over the candidates at every width, the rest at the widths of `config.around`;
    so is backward M3PC, towards one goal.
    """
    n, h = config.plan.candidates, config.plan.horizon
    around = width in config.around
    environments = [e for e in config.environments if e != 1] if around else []
    found = [[Point("rcbc", None, None, e, None)] for e in (1, *environments)]
    found += [[Point("m3pc_goal", None, None, 1, None)]] if around else []
    for method in PLANNERS:
        every = around or method == "m3pc_m"
        counts = dict.fromkeys((*(config.candidates if every else ()), n))
        found += [[Point(method, count, h, 1, True)] for count in sorted(counts)]
        others = [x for x in config.horizons if x != h] if around else []
        found += [[Point(method, n, x, 1, True)] for x in others]
        found += [[Point(method, n, h, e, True)] for e in environments]
    if width in config.compared:
        standard = Point("m3pc_m", n, h, 1, True)
        found[found.index([standard])].append(standard._replace(pruned=False))
    return found


def multiply_adds(network: model.Model, point: Point, history: int) -> int:
    """Count the multiply-adds of one decision in every environment."""
    if point.method == "rcbc":
        return point.environments * operations.policy(network.config)
    if point.method == "m3pc_goal":
        return point.environments * operations.goal_decision(network.config)
    plan = plan_of(point, history)
    return point.environments * operations.decision(network.config, plan, CriticConfig())


def seconds_at(
    rate: float, network: model.Model, group: Sequence[Point], config: config_dict.ConfigDict
) -> float:
    """Estimate how long one call of each in a group takes at a rate in GFLOP/s."""
    counts = [multiply_adds(network, point, config.plan.history) for point in group]
    return 2e-9 * sum(counts) / rate


def plan_of(point: Point, history: int) -> PlanConfig:
    """Build the plan of a point; like the released planner it reads everything from one pass."""
    return planner.plan_config(
        point.method,
        readout="fd",
        candidates=point.candidates,
        horizon=point.horizon,
        history=history,
        pruned=point.pruned,
        discount=CriticConfig().discount,
    )


def section(
    config: config_dict.ConfigDict, matmuls: timing.Matmuls
) -> Iterator[workloads.Workload]:
    """Time all decisions, width by width, without those that would take too long."""
    for dtype in workloads.dtypes(config):
        for width in config.widths:
            sizes = {"width": width, "encoder_layers": config.encoder_layers}
            network = network_of(compute_dtype=dtype, **sizes)
            groups, left_out = short_enough(config, network, matmuls[dtype].peak)
            make = functools.partial(compile_point, network, history=config.plan.history)
            makes = [[functools.partial(make, point) for point in group] for group in groups]
            yield workloads.Workload(f"decisions, width {width}", makes, left_out)


def short_enough(
    config: config_dict.ConfigDict, network: model.Model, peak: float
) -> tuple[list[list[Point]], list[str]]:
    """Drop the last points of groups whose rounds would take too long; say which and why."""
    groups, left_out, width = [], [], network.config.width
    for group in points(config, width):
        while group and (needed := seconds_at(peak, network, group, config)) > config.longest:
            left_out.append(
                f"{describe(group[-1], width)}: {needed:.2g} s per round at the peak rate"
            )
            group = group[:-1]
        groups += [group] if group else []
    return groups, left_out


def describe(point: Point, width: int) -> str:
    """Describe a point in words."""
    settings = {k: v for k, v in point._asdict().items() if v is not None and k != "method"}
    named = ", ".join(f"{k} {v}" for k, v in (settings | {"width": width}).items())
    return f"{point.method} with {named}"


def network_of(**sizes: Any) -> model.Model:
    """Make a model for the dimensions of hopper."""
    return model.make_model(ModelConfig(training_steps.MODALITIES, dropout=0.0, **sizes))


def compile_point(network: model.Model, point: Point, history: int) -> workloads.Program:
    """Compile the decisions of one point."""
    arguments = random_arguments(network, point, history)
    if point.method == "rcbc":
        decide = functools.partial(_clone, network)
    elif point.method == "m3pc_goal":
        decide = functools.partial(_reach, network)
    else:
        plan = plan_of(point, history)
        value = planner.least_q if plan.guidance == "critic" else None
        act = compiled.make_planner(network, plan, training_steps.LIMIT, value).act
        decide = functools.partial(_plan, act)
    call, cost = workloads.compile_call(decide, arguments)
    settings = point._asdict() | {"width": network.config.width}
    program = {True: "", None: "", False: "plain"}[settings.pop("pruned")]
    name = workloads.row_name("decisions", settings.pop("method"), network.config.compute_dtype)
    name |= settings | {"program": program}
    count = multiply_adds(network, point, history)
    return workloads.Program(name, call, count, decisions=point.environments, cost=cost)


def _clone(network: model.Model, weights: compiled.Weights, contexts: Any, *_: Any) -> jax.Array:
    choose = functools.partial(roles.act, network, weights.params, weights.stats)
    return jax.vmap(lambda context: choose(context, jnp.float32(1.0)))(contexts)


def _reach(network: model.Model, weights: compiled.Weights, contexts: Any, *_: Any) -> jax.Array:
    states = contexts.states[:1, 0]
    steps, given = jnp.full(1, 3, jnp.int32), jnp.ones(states.shape, bool)
    how = {"method": "m3pc_goal", "config": GoalConfig(), "complete": True}
    arguments = weights.params, weights.stats, contexts, backward.Waypoints(states, steps, given)
    return goal_reaching.choose(network, *arguments, **how).action


def _plan(act: Callable, *arguments: Any) -> jax.Array:
    return act(*arguments)[0]


def random_arguments(network: model.Model, point: Point, history: int) -> tuple:
    """Make the arguments of a planner: weights, full windows, a target and a key."""
    dims = {m.name: m.features for m in network.config.modalities}
    stats = {m: tokens.identity_stats(n) for m, n in dims.items()}
    critic = None
    if point.method == "m3pc_q":
        state = iql.init_state(jax.random.key(1), CriticConfig(), dims["states"], dims["actions"])
        critic = iql.raw_params(state, CriticConfig()), stats["states"]
    weights = compiled.Weights(jax.jit(network.init)(jax.random.key(0)), stats, critic)
    contexts = full_windows(point.environments, dims, network.config.window, history)
    return weights, contexts, jnp.float32(1.0), jax.random.key(2)


def full_windows(
    environments: int, dims: dict[str, int], window: int, history: int
) -> context_lib.Context:
    """Make windows of the middle of an episode."""
    begin = functools.partial(context_lib.begin, action_dim=dims["actions"], window=window)
    contexts = jax.vmap(begin)(jnp.zeros((environments, dims["states"])))
    return contexts.replace(slot=jnp.full(environments, history, jnp.int32))
