"""Score a run's behaviour actors, and keep the ladder from which built-in data are collected.

Expert is the actor with the best mean return, sampled stochastically; medium the one nearest a
third of that. Up to `rungs` actors evenly spaced in training up to medium are kept besides.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from ml_collections import config_dict

from experiments import cli, runs
from mtm_jax.data import collector, shard
from mtm_jax.envs import registry
from mtm_jax.errors import UserError


class Scored(NamedTuple):
    """An actor with its mean return and episode length, sampled stochastically."""

    path: pathlib.Path
    step: int
    mean_return: float
    mean_length: float


def main(config: config_dict.ConfigDict) -> None:
    """Score, choose, write."""
    spec = registry.ENVS[config.env]
    paths = sorted((pathlib.Path(config.run) / "actors").glob("actor_*.npz"))
    if not paths:
        raise UserError(f"no actors in {config.run}/actors; give --config.run=FOLDER of a run")
    first = score(spec, paths, config.scoring_steps, config.seed)
    best = sorted(first, key=lambda s: s.mean_return)[-config.finalists :]
    finals = score(spec, [s.path for s in best], config.final_steps, config.seed + 1)
    expert = max(finals, key=lambda s: s.mean_return)
    goal = config.medium_fraction * expert.mean_return
    medium = min(first, key=lambda s: abs(s.mean_return - goal))
    kept = rungs([s for s in first if s.step <= medium.step], config.rungs)
    kept = [*kept, *([expert] if expert.step > medium.step else [])]
    write(pathlib.Path(config.out), spec, kept, medium, expert)
    for s in kept:
        score_100 = registry.normalized_score(spec, s.mean_return)
        role = " medium" * (s.path == medium.path) + " expert" * (s is expert)
        cli.say(f"{s.path.name}: return {s.mean_return:.0f}, score {score_100:.1f}{role}")


def score(
    spec: registry.EnvSpec, paths: Sequence[pathlib.Path], steps: int, seed: int
) -> list[Scored]:
    """Sample whole episodes of at least `steps` steps from every actor."""
    tasks = [
        shard.Task(str(p.resolve()), spec.builtin_id, spec.max_episode_steps, steps, seed, (k,))
        for k, p in enumerate(paths)
    ]
    sampled = collector.collect(tasks, None, f"scoring {len(paths)} actors", progress=True)
    return [_summarise(p, episodes) for p, episodes in zip(paths, sampled, strict=True)]


def _summarise(path: pathlib.Path, episodes: shard.Episodes) -> Scored:
    starts = np.cumsum(episodes.lengths) - episodes.lengths
    returns = np.add.reduceat(episodes.rewards.astype(np.float64), starts)
    with np.load(path, allow_pickle=False) as file:
        step = int(file["step"])
    return Scored(path, step, float(returns.mean()), float(episodes.lengths.mean()))


def rungs(actors: Sequence[Scored], count: int) -> list[Scored]:
    """Choose at most `count` actors evenly spaced in order, the last always among them."""
    index = np.linspace(0, len(actors) - 1, min(count, len(actors))).round().astype(int)
    return [actors[i] for i in index]


def write(
    out: pathlib.Path,
    spec: registry.EnvSpec,
    kept: Sequence[Scored],
    medium: Scored,
    expert: Scored,
) -> None:
    """Write the kept actors with their scores, and the index `ladder.json`, last."""
    out.mkdir(parents=True, exist_ok=True)
    ladder = []
    for s in kept:
        with np.load(s.path, allow_pickle=False) as file:
            arrays = dict(file)
        score_100 = float(registry.normalized_score(spec, s.mean_return))
        arrays |= {"return": np.float64(s.mean_return), "score": np.float64(score_100)}
        np.savez_compressed(out / s.path.name, **arrays)
        ladder.append(
            {
                "file": s.path.name,
                "step": s.step,
                "return": s.mean_return,
                "score": score_100,
                "length": s.mean_length,
            }
        )
    index = {
        "env_id": spec.builtin_id,
        "seed": int(arrays["seed"]),
        "ladder": ladder,
        "medium": medium.path.name,
        "expert": expert.path.name,
    }
    runs.write_text(out / "ladder.json", json.dumps(index, indent=2) + "\n")


if __name__ == "__main__":
    cli.run(main)
