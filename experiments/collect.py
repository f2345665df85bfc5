"""Collect one built-in data set and say what is in it.

python -m experiments.collect --config=configs/collect.py:hopper-medium --config.steps=200000
"""

from __future__ import annotations

import ml_collections
import rich.console
import rich.table

from experiments import cli
from mtm_jax.data import behaviours
from mtm_jax.envs import registry
from mtm_jax.types import Trajectories


def main(config: ml_collections.ConfigDict) -> None:
    """Collect, or find what was collected before, and print a table."""
    trajectories = behaviours.load(
        config.name,
        steps=config.steps,
        seed=config.seed,
        actors=config.actors or None,
        workers=config.workers or None,
    )
    console = rich.console.Console()  # stdout; logs and the progress bar go to stderr
    console.print(summary(trajectories))
    folder = behaviours.folder(config.name, config.steps, config.seed)
    console.print(f"stored in {folder}", soft_wrap=True, highlight=False)


def summary(trajectories: Trajectories) -> rich.table.Table:
    """Tabulate episodes, steps, returns and the normalised score of a data set."""
    info, returns = trajectories.info, trajectories.episode_returns
    scores = registry.normalized_score(registry.spec_of_id(info.env_id), returns)
    cut = not trajectories.terminals[-1] and trajectories.lengths[-1] < info.max_episode_steps
    table = rich.table.Table(title=f"{info.name} ({info.env_id})", show_header=False)
    table.add_row("steps", f"{len(trajectories.rewards):,}")
    table.add_row("episodes", f"{len(returns):,}" + (", the last one cut" if cut else ""))
    table.add_row("mean length", f"{trajectories.lengths.mean():,.1f} steps")
    table.add_row("mean return", f"{returns.mean():,.1f}")
    table.add_row("lowest return", f"{returns.min():,.1f}")
    table.add_row("highest return", f"{returns.max():,.1f}")
    table.add_row("normalised score", f"{scores.mean():.1f}")
    return table


if __name__ == "__main__":
    cli.run(main)
