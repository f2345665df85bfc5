"""Score a run's behaviour actors, and keep the ladder from which built-in data are collected.

Expert is the actor with the best mean return, sampled stochastically; medium the one nearest
`medium_fraction` of that among those that score alike, within `agreement`, sampled and in their
mode, because a policy that imitates it acts by the mode. Up to `rungs` actors are kept up to
medium, each better than all before it, evenly spaced in return.
Without `roles`, for a run that explores, `rungs` actors evenly spaced in all of its training.
"""

from __future__ import annotations

import functools
import json
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from ml_collections import config_dict

from experiments.runtime import cli, runs
from mtm_jax.data.builtin import collector, coverage, ladders, shard
from mtm_jax.envs import registry
from mtm_jax.errors import UserError

T = TypeVar("T")


class Scored(NamedTuple):
    """An actor with its mean returns, sampled stochastically and in its mode."""

    path: pathlib.Path
    step: int
    mean_return: float
    mode_return: float
    mean_length: float  # of sampled episodes

    def agrees(self, within: float) -> bool:
        """Whether the mode's return is the sampled one, up to a share of it."""
        return abs(self.mode_return - self.mean_return) <= within * abs(self.mean_return)


def main(config: config_dict.ConfigDict) -> None:
    """Score, choose, write."""
    check(config)
    spec, _ = registry.split_name(config.env, versions=False)
    paths = sorted((pathlib.Path(config.run) / "actors").glob("actor_*.npz"))
    paths = sorted([*paths, *map(pathlib.Path, config.actors)], key=lambda path: path.name)
    if not paths:
        raise UserError(f"no actors in {config.run}/actors; give --config.run=FOLDER of a run")
    for path in paths:
        ladders.check_actor(path, spec)
    if not config.roles:
        keep_all_stages(config, spec, paths)
        return
    first = score(spec, paths, config.scoring_steps, config.seed)
    expert = finalist(spec, first, config, lambda s: -s.mean_return)
    goal = config.medium_fraction * expert.mean_return
    steady = agreeing(first, config)
    medium = finalist(spec, steady, config, lambda s: abs(s.mean_return - goal), agreeing)
    before = rising([s for s in first if s.step < medium.step], medium)
    kept = evenly(before, medium, config.rungs - 1)
    kept = [*kept, medium, *([expert] if expert.step > medium.step else [])]
    roles = {"medium": medium.path.name, "expert": expert.path.name}
    write(pathlib.Path(config.out), spec, [(s.path, returns_entry(spec, s)) for s in kept], roles)
    for s in kept:
        sampled, mode = (
            float(registry.normalized_score(spec, r)) for r in (s.mean_return, s.mode_return)
        )
        role = " medium" * (s.path == medium.path) + " expert" * (s is expert)
        cli.say(f"{s.path.name}: score {sampled:.1f} sampled, {mode:.1f} in its mode{role}")


def check(config: config_dict.ConfigDict) -> None:
    """Refuse numbers before anything is scored.

    Raises:
        UserError: one is out of range.
    """
    for key in ("scoring_steps", "final_steps", "finalists", "rungs"):
        if config[key] < 1:
            raise UserError(f"{key} is {config[key]}; it must be at least 1")
    if config.seed < 0:
        raise UserError(f"seed is {config.seed}; it must not be negative")
    for key in ("medium_fraction", "agreement"):
        if not 0 < config[key] < 1:
            raise UserError(f"{key} is {config[key]}; it must lie between 0 and 1")


def finalist(
    spec: registry.EnvSpec,
    scored: Sequence[Scored],
    config: config_dict.ConfigDict,
    distance: Callable[[Scored], float],
    admit: Callable[[list[Scored], config_dict.ConfigDict], list[Scored]] = lambda s, config: s,
) -> Scored:
    """Choose the actor of least distance, after sampling the nearest few again for longer."""
    near = sorted(scored, key=distance)[: config.finalists]
    again = score(spec, [s.path for s in near], config.final_steps, config.seed + 1)
    return min(admit(again, config), key=distance)


def agreeing(scored: Sequence[Scored], config: config_dict.ConfigDict) -> list[Scored]:
    """Keep the actors that score alike sampled and in their mode.

    Raises:
        UserError: there is none.
    """
    kept = [s for s in scored if s.agrees(config.agreement)]
    if not kept:
        closest = min(scored, key=lambda s: abs(s.mode_return - s.mean_return))
        raise UserError(
            f"none of {len(scored)} actors scores alike sampled and in its mode within "
            f"{config.agreement:.0%}; the closest is {closest.path.name}, with returns of "
            f"{closest.mean_return:.0f} and {closest.mode_return:.0f}; train with a smaller "
            "snapshot_every, or give a larger --config.agreement"
        )
    return kept


def rising(scored: Sequence[Scored], medium: Scored) -> list[Scored]:
    """Keep the actors that are better than all before them, and worse than medium."""
    kept: list[Scored] = []
    for s in scored:
        if max((k.mean_return for k in kept), default=-math.inf) < s.mean_return:
            kept.append(s)
    return [s for s in kept if s.mean_return < medium.mean_return]


def evenly(scored: Sequence[Scored], medium: Scored, count: int) -> list[Scored]:
    """Choose at most `count` actors evenly spaced in return, up to medium, which is not among them.

    Args:
        scored: with rising returns.
        medium: the actor that they lead up to.
        count: how many.
    """
    if not scored:
        return []
    goals = np.linspace(scored[0].mean_return, medium.mean_return, count + 1)[:-1]
    found = np.array([s.mean_return for s in scored])
    nearest = sorted({int(np.abs(found - goal).argmin()) for goal in goals})
    return [scored[k] for k in nearest]


def keep_all_stages(
    config: config_dict.ConfigDict, spec: registry.EnvSpec, paths: Sequence[pathlib.Path]
) -> None:
    """Keep actors evenly spaced over the whole training of an explorer, with their coverage."""
    kept = rungs(paths, config.rungs)
    (sampled,) = sample(spec, kept, config.scoring_steps, config.seed, (1.0,))
    cells = [coverage.occupied(e.observations[: config.scoring_steps]) for e in sampled]
    entries = [{"coverage": count} for count in cells]
    write(pathlib.Path(config.out), spec, list(zip(kept, entries, strict=True)), {})
    for path, count in zip(kept, cells, strict=True):
        cli.say(f"{path.name}: {count} cells in {config.scoring_steps} steps")


def score(
    spec: registry.EnvSpec, paths: Sequence[pathlib.Path], steps: int, seed: int
) -> list[Scored]:
    """Run whole episodes of at least `steps` steps with every actor, sampled and in its mode."""
    sampled, by_mode = sample(spec, paths, steps, seed, (1.0, 0.0))
    return [_summarise(*of_actor) for of_actor in zip(paths, sampled, by_mode, strict=True)]


def sample(
    spec: registry.EnvSpec,
    paths: Sequence[pathlib.Path],
    steps: int,
    seed: int,
    noises: Sequence[float],
) -> list[list[shard.Episodes]]:
    """Run every actor with each factor of its noise: -> for each factor the actors' episodes."""
    task = functools.partial(shard.Task, env_id=spec.builtin_id, steps=steps, seed=seed)
    tasks = [
        task(str(p.resolve()), max_episode_steps=spec.max_episode_steps, spawn_key=(k,), noise=x)
        for x in noises
        for k, p in enumerate(paths)
    ]
    found = collector.collect(tasks, None, f"scoring {len(paths)} actors", progress=True)
    return [found[k : k + len(paths)] for k in range(0, len(found), len(paths))]


def _summarise(path: pathlib.Path, sampled: shard.Episodes, by_mode: shard.Episodes) -> Scored:
    with np.load(path, allow_pickle=False) as file:
        step = int(file["step"])
    length = float(sampled.lengths.mean())
    return Scored(path, step, _mean_return(sampled), _mean_return(by_mode), length)


def _mean_return(episodes: shard.Episodes) -> float:
    starts = np.cumsum(episodes.lengths) - episodes.lengths
    return float(np.add.reduceat(episodes.rewards.astype(np.float64), starts).mean())


def rungs(actors: Sequence[T], count: int) -> list[T]:
    """Choose at most `count` actors evenly spaced in order, the last always among them."""
    index = np.linspace(0, len(actors) - 1, min(count, len(actors))).round().astype(int)
    return [actors[i] for i in index]


def returns_entry(spec: registry.EnvSpec, scored: Scored) -> dict[str, float]:
    """What the index says of an actor that was scored by its returns."""
    returns = {"": scored.mean_return, "mode_": scored.mode_return}
    scores = {f"{k}score": float(registry.normalized_score(spec, r)) for k, r in returns.items()}
    return {f"{k}return": r for k, r in returns.items()} | scores | {"length": scored.mean_length}


def write(
    out: pathlib.Path,
    spec: registry.EnvSpec,
    kept: Sequence[tuple[pathlib.Path, Mapping[str, float]]],
    roles: Mapping[str, str],
) -> None:
    """Write the kept actors with what was measured of them, and the index `ladder.json`, last."""
    out.mkdir(parents=True, exist_ok=True)
    ladder = []
    for path, entry in kept:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        measured = {k: np.float64(v) for k, v in entry.items() if k != "length"}
        np.savez_compressed(out / path.name, **(arrays | measured))
        whence = {key: int(arrays[key]) for key in ("step", "seed")}
        ladder.append({"file": path.name, **whence, **entry})
    index = {"env_id": spec.builtin_id, "ladder": ladder, **roles}
    runs.write_text(out / "ladder.json", json.dumps(index, indent=2) + "\n")


if __name__ == "__main__":
    cli.run(main)
