"""Evaluate a pretrained run as a policy, by behaviour cloning and conditioned on returns.

    python -m experiments.evaluate --config.run=runs/pretrain/hopper-medium-m3pc-small-seed0
    python -m experiments.evaluate --config.run=RUN --config.prompt.guidance=2.0

Adds one row per method to the run's results.jsonl, and draws figures/scores.png.
"""

from __future__ import annotations

import pathlib

from ml_collections import config_dict

from experiments.runtime import cli, evaluation, plans
from mtm_jax.agents import pretrained
from mtm_jax.errors import UserError


def main(config: config_dict.ConfigDict) -> None:
    """Load the last checkpoint of a run and evaluate it."""
    if not config.run:
        raise UserError("no run was named; give --config.run=FOLDER")
    evaluation.check(config.eval)
    plans.prompt_of_method("rcbc", config.prompt)
    folder = pathlib.Path(config.run)
    agents = [pretrained.load(folder, weights=config.weights)]
    evaluation.evaluate_runs([folder], agents, config.eval, "evaluate", prompt=config.prompt)


if __name__ == "__main__":
    cli.run(main)
