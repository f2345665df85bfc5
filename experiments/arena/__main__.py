"""Compare recipes of pretraining and ways of acting over data sets and seeds.

    python -m experiments.arena
    python -m experiments.arena --config.recipes="('default','average')" --config.parallel=6

Trains every recipe on every data set with all seeds in one program, evaluates every way of acting
in the same episodes, and prints for each recipe and acting the sum of the data sets' mean scores,
its spread over seeds, and paired differences with 95% intervals. The same command continues what
was interrupted; --config.report=True prints what there is and what remains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import rich.console
from ml_collections import config_dict

from experiments.arena import entries, jobs, standings
from experiments.runtime import cli
from mtm_jax.envs import registry
from mtm_jax.errors import UserError
from mtm_jax.io import records


def main(config: config_dict.ConfigDict) -> None:
    """Check everything, do what remains, print the table."""
    check(config)
    if config.results:
        show(records.read_jsonl(config.results), config)
        return
    if not config.report:
        entries.settle(config)
        jobs.do(config, jobs.remaining(config))
    show(entries.rows(config, config.recipes), config)
    for job in jobs.remaining(config):
        cli.say(f"remains: {job.label}: {', '.join(job.actings)}")


def show(rows: Sequence[Mapping[str, Any]], config: config_dict.ConfigDict) -> None:
    """Print the table of rows."""
    rich.console.Console(width=220).print(standings.table(standings.collect(rows, config), config))


def check(config: config_dict.ConfigDict) -> None:
    """Refuse settings before anything is trained.

    Raises:
        UserError: a recipe, an acting or a data set is unknown, or a number is out of range.
    """
    for key in ("recipes", "names", "actings"):
        if not config[key] or len(set(config[key])) < len(config[key]):
            raise UserError(f"{key} are {config[key]}; name at least one, and each once")
    for key in ("seeds", "episodes", "candidates", "parallel"):
        if config[key] < 1:
            raise UserError(f"{key} is {config[key]}; it must be at least 1")
    if min(config.seed, config.eval_seed) < 0:
        raise UserError(
            f"seed is {config.seed} and eval_seed {config.eval_seed}; neither may be negative"
        )
    for recipe in config.recipes:
        for name in config.names:
            if config.source == "builtin":
                registry.parse_name(name)
            entries.pretraining(config, recipe, name)
    for acting in config.actings:
        entries.acting(config, acting)


if __name__ == "__main__":
    cli.run(main)
