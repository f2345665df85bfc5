"""The tables and figures of MTM: what one masked trajectory model can do, and from how little data.

    python -m experiments.mtm_study --config.study=capabilities
    python -m experiments.mtm_study --config.study=heteromodal --config.quick=True

Studies: capabilities, masking, heteromodal, data_efficiency, window_length; docs/roles.md says what
each prints and costs. Trains what is not trained yet, all seeds in one program, evaluates it,
prints a table with 95% intervals and draws <study>.png. The same command continues what was
interrupted; --config.report=True prints what there is and what remains.
"""

from __future__ import annotations

import pathlib

import rich.console
from ml_collections import config_dict

from configs import mtm_study as page
from experiments.arena import entries, jobs
from experiments.mtm_study import tables, work
from experiments.runtime import cli
from mtm_jax.envs import registry
from mtm_jax.errors import UserError
from mtm_jax.io import records


def main(config: config_dict.ConfigDict) -> None:
    """Check everything, do what remains, print the table, draw the figure."""
    complete(config)
    check(config)
    if config.results:
        show(records.read_jsonl(config.results), config)
        return
    if not config.report:
        entries.settle(config)
        jobs.do(config, jobs.remaining(config), work.work)
    show(entries.rows(config, config.recipes), config)
    for job in jobs.remaining(config):
        cli.say(f"remains: {job.label}: {', '.join(job.actings)}")


def complete(config: config_dict.ConfigDict) -> None:
    """Fill in what the study decides.

    Raises:
        UserError: there is no such study.
    """
    if config.study not in page.STUDIES:
        raise UserError(f"unknown study {config.study!r}; choose among {', '.join(page.STUDIES)}")
    study = page.STUDIES[config.study]
    if config.quick:
        config.update({k: v for k, v in page.QUICK.items() if k != "steps" or not config.steps})
    if not config.out:  # models of different sizes do not share a folder
        ending = "" if config.variant == "mtm" else f"-{config.variant}"
        config.out = f"runs/mtm_study{ending}{'-quick' * config.quick}"
    if not config.names:
        config.names = study.names[:1] if config.quick else study.names
    if not config.recipes:
        config.recipes = (config.quick and study.quick) or tuple(study.recipes)


def check(config: config_dict.ConfigDict) -> None:
    """Refuse settings before anything is trained.

    Raises:
        UserError: a recipe, a way of acting or a data set is none of the study, or a number is out
            of range.
    """
    study = page.STUDIES[config.study]
    known = {
        "recipes": tuple(study.recipes),
        "actings": tuple(dict.fromkeys(a for found in study.recipes.values() for a in found)),
    }
    for key, choices in known.items():
        unknown = [name for name in config[key] if name not in choices]
        if unknown:
            raise UserError(
                f"{key} name {unknown[0]!r}, which study {config.study} does not have; choose "
                f"among {', '.join(choices)}"
            )
    for key in ("seeds", "episodes", "parallel"):
        if config[key] < 1:
            raise UserError(f"{key} is {config[key]}; it must be at least 1")
    if min(config.seed, config.eval_seed) < 0:
        raise UserError(
            f"seed is {config.seed} and eval_seed {config.eval_seed}; neither may be negative"
        )
    for name in config.names:
        if config.source == "builtin":
            registry.parse_name(name)
        for recipe in config.recipes:
            entries.pretraining(config, recipe, name)


def show(rows: list[dict], config: config_dict.ConfigDict) -> None:
    """Print the table of rows, and draw the figure of a study that has one."""
    found = tables.collect(rows, config)
    if not found:
        cli.say("nothing has been evaluated with all of these seeds yet")
        return
    capabilities = config.study == "capabilities"
    table = tables.capabilities(found) if capabilities else tables.scores(found)
    rich.console.Console(width=200).print(table)
    if not capabilities:
        path = config.figure or pathlib.Path(config.out) / f"{config.study}.png"
        cli.say(f"figure: {tables.draw(found, page.STUDIES[config.study], path)}")


if __name__ == "__main__":
    cli.run(main)
