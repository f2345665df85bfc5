"""Programs of `experiments.bench` that decide: by the policy alone and by planning.

Settings vary one by one around the standard point. Decisions are those in the course of an
episode, with a full window; parameters are random, which changes no time.
"""

from __future__ import annotations

import concurrent.futures
import functools
import os
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import config_dict

from experiments import bench_timing
from mtm_jax import iql, model, operations, planner, tokens
from mtm_jax.config import CriticConfig, PlanConfig
from mtm_jax.planning import context as context_lib
from mtm_jax.planning import forward, roles

_LIMIT = 1000  # steps of an episode


class Point(NamedTuple):
    """One setting of a decision."""

    method: str  # "rcbc", "m3pc_m" or "m3pc_q"
    candidates: int | None  # N; None where nothing is planned
    horizon: int | None
    environments: int
    pruned: bool | None


def points(config: config_dict.ConfigDict, width: int) -> list[list[Point]]:
    """List what to time at one width, in groups that are timed in one loop.

    M3PC-M over the candidates at every width; the rest at the widths of `config.around`.
    """
    n, h = config.plan.candidates, config.plan.horizon
    around = width in config.around
    environments = [e for e in config.environments if e != 1] if around else []
    found = [[Point("rcbc", None, None, e, None)] for e in (1, *environments)]
    for method in planner.GUIDANCE:
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
    """Count the products of all environments' decisions."""
    if point.method == "rcbc":
        return point.environments * operations.policy(network.config)
    plan = plan_of(point, history)
    return point.environments * operations.decision(network.config, plan, CriticConfig())


def seconds_at(
    rate: float, network: model.Model, group: Sequence[Point], config: config_dict.ConfigDict
) -> float:
    """Say how long calls of a group would take at a rate in GFLOP/s."""
    counts = [multiply_adds(network, point, config.plan.history) for point in group]
    return 2e-9 * sum(counts) / rate


def plan_of(point: Point, history: int) -> PlanConfig:
    """Build the plan of a point."""
    return planner.plan_config(
        point.method,
        candidates=point.candidates,
        horizon=point.horizon,
        history=history,
        pruned=point.pruned,
        discount=CriticConfig().discount,
    )


def prepare(
    network: model.Model, groups: Sequence[Sequence[Point]], history: int
) -> list[list[bench_timing.Program]]:
    """Compile all decisions of one width, on as many threads as there are cores."""
    specs = network.config.modalities
    stats = {m.name: tokens.identity_stats(m.features) for m in specs}
    params = jax.jit(network.init)(jax.random.key(0))
    make = functools.partial(_compile, network, params, stats, history)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:
        futures = [[threads.submit(make, point) for point in group] for group in groups]
        return [[future.result() for future in group] for group in futures]


def _compile(
    network: model.Model, params: dict, stats: dict, history: int, point: Point
) -> bench_timing.Program:
    dims = {m.name: m.features for m in network.config.modalities}
    contexts = _full_windows(point.environments, dims, network.config.window, history)
    target = jnp.float32(1.0)
    if point.method == "rcbc":

        def decide(params: dict, contexts: context_lib.Context) -> jax.Array:
            choose = functools.partial(roles.act, network, params, stats)
            return jax.vmap(lambda c: choose(c, target))(contexts)

        arguments = (params, contexts)
    else:
        plan, critic, value = plan_of(point, history), None, None
        if plan.guidance == "critic":
            sizes = CriticConfig(), dims["states"], dims["actions"]
            state = iql.init_state(jax.random.key(1), *sizes)
            critic = iql.raw_params(state, CriticConfig()), stats["states"]
            value = planner.least_q
        explain = forward.make_planner(network, plan, _LIMIT, value).explain

        def decide(*arguments: object) -> jax.Array:
            return explain(*arguments).action

        weights = forward.Weights(params, stats, critic)
        arguments = (weights, contexts, target, jax.random.key(2))
    call, memory = bench_timing.compile_call(decide, arguments)
    name = {"what": point.method} | point._asdict() | {"width": network.config.width}
    del name["method"]
    count = multiply_adds(network, point, history)
    return bench_timing.Program(name, call, count, point.environments, memory)


def _full_windows(
    environments: int, dims: dict[str, int], window: int, history: int
) -> context_lib.Context:
    """Windows in the course of an episode."""
    begin = functools.partial(context_lib.begin, action_dim=dims["actions"], window=window)
    contexts = jax.vmap(begin)(jnp.zeros((environments, dims["states"])))
    return contexts.replace(slot=jnp.full(environments, history, jnp.int32))
