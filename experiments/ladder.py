"""Score a run's behaviour actors, and keep the ladder from which built-in data are collected.

Expert is the actor with the best mean return, sampled stochastically; medium the one nearest
`medium_fraction` of that. Up to `rungs` actors evenly spaced in training up to medium are kept.
Without `roles`, for a run that explores, `rungs` actors evenly spaced in all of its training.
"""

from __future__ import annotations

import json
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
    """An actor with its mean return and episode length, sampled stochastically."""

    path: pathlib.Path
    step: int
    mean_return: float
    mean_length: float


def main(config: config_dict.ConfigDict) -> None:
    """Score, choose, write."""
    check(config)
    spec, _ = registry.split_name(config.env, versions=False)
    paths = sorted((pathlib.Path(config.run) / "actors").glob("actor_*.npz"))
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
    medium = finalist(spec, first, config, lambda s: abs(s.mean_return - goal))
    kept = rungs([s for s in first if s.step < medium.step], config.rungs - 1)
    kept = [*kept, medium, *([expert] if expert.step > medium.step else [])]
    roles = {"medium": medium.path.name, "expert": expert.path.name}
    write(pathlib.Path(config.out), spec, [(s.path, returns_entry(spec, s)) for s in kept], roles)
    for s in kept:
        score_100 = registry.normalized_score(spec, s.mean_return)
        role = " medium" * (s.path == medium.path) + " expert" * (s is expert)
        cli.say(f"{s.path.name}: return {s.mean_return:.0f}, score {score_100:.1f}{role}")


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
    if not 0 < config.medium_fraction < 1:
        raise UserError(f"medium_fraction is {config.medium_fraction}; it must lie between 0 and 1")


def finalist(
    spec: registry.EnvSpec,
    scored: Sequence[Scored],
    config: config_dict.ConfigDict,
    distance: Callable[[Scored], float],
) -> Scored:
    """Choose the actor of least distance, after sampling the nearest few again for longer."""
    near = sorted(scored, key=distance)[: config.finalists]
    return min(
        score(spec, [s.path for s in near], config.final_steps, config.seed + 1), key=distance
    )


def keep_all_stages(
    config: config_dict.ConfigDict, spec: registry.EnvSpec, paths: Sequence[pathlib.Path]
) -> None:
    """Keep actors evenly spaced over the whole training of an explorer, with their coverage."""
    kept = rungs(paths, config.rungs)
    sampled = sample(spec, kept, config.scoring_steps, config.seed)
    cells = [coverage.occupied(e.observations[: config.scoring_steps]) for e in sampled]
    entries = [{"coverage": count} for count in cells]
    write(pathlib.Path(config.out), spec, list(zip(kept, entries, strict=True)), {})
    for path, count in zip(kept, cells, strict=True):
        cli.say(f"{path.name}: {count} cells in {config.scoring_steps} steps")


def score(
    spec: registry.EnvSpec, paths: Sequence[pathlib.Path], steps: int, seed: int
) -> list[Scored]:
    """Sample whole episodes of at least `steps` steps from every actor."""
    sampled = sample(spec, paths, steps, seed)
    return [_summarise(p, episodes) for p, episodes in zip(paths, sampled, strict=True)]


def sample(
    spec: registry.EnvSpec, paths: Sequence[pathlib.Path], steps: int, seed: int
) -> list[shard.Episodes]:
    """Sample every actor stochastically."""
    tasks = [
        shard.Task(str(p.resolve()), spec.builtin_id, spec.max_episode_steps, steps, seed, (k,))
        for k, p in enumerate(paths)
    ]
    return collector.collect(tasks, None, f"scoring {len(paths)} actors", progress=True)


def _summarise(path: pathlib.Path, episodes: shard.Episodes) -> Scored:
    starts = np.cumsum(episodes.lengths) - episodes.lengths
    returns = np.add.reduceat(episodes.rewards.astype(np.float64), starts)
    with np.load(path, allow_pickle=False) as file:
        step = int(file["step"])
    return Scored(path, step, float(returns.mean()), float(episodes.lengths.mean()))


def rungs(actors: Sequence[T], count: int) -> list[T]:
    """Choose at most `count` actors evenly spaced in order, the last always among them."""
    index = np.linspace(0, len(actors) - 1, min(count, len(actors))).round().astype(int)
    return [actors[i] for i in index]


def returns_entry(spec: registry.EnvSpec, scored: Scored) -> dict[str, float]:
    """What the index says of an actor that was scored by its returns."""
    score_100 = float(registry.normalized_score(spec, scored.mean_return))
    return {"return": scored.mean_return, "score": score_100, "length": scored.mean_length}


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
        np.savez_compressed(out / path.name, **arrays, **measured)
        ladder.append({"file": path.name, "step": int(arrays["step"]), **entry})
    index = {"env_id": spec.builtin_id, "seed": int(arrays["seed"]), "ladder": ladder, **roles}
    runs.write_text(out / "ladder.json", json.dumps(index, indent=2) + "\n")


if __name__ == "__main__":
    cli.run(main)
