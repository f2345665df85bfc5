"""Time training and planning on an accelerator, then train and evaluate a run, within minutes.

    python -m experiments.gpu

Timings go to bench.json in the folder `out`, the run's rows to run/results.jsonl, and what every
stage took to stages.jsonl. A stage that time cuts short keeps what it has written; a training that
was cut short is continued by the same command.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from ml_collections import config_dict

from experiments.bench import table
from experiments.runtime import cli
from mtm_jax.errors import UserError
from mtm_jax.io import records, results

GRACE = 20.0  # seconds that a program has to save after it is told to end


class Stage(NamedTuple):
    """A command of this package."""

    name: str
    arguments: list[str]
    share: float = 1.0  # largest share of all time


def main(config: config_dict.ConfigDict) -> None:
    """Run stage after stage until time is up, and show what was reached."""
    check(config)
    out = pathlib.Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + 60 * config.minutes
    for stage in stages(config):
        limit = min(ends - time.monotonic() - GRACE, 60 * config.minutes * stage.share)
        if limit <= 0:
            cli.say(f"no time is left for {stage.name}")
            continue
        run(stage, limit, out)
    show(out)


def check(config: config_dict.ConfigDict) -> None:
    """Refuse settings before anything is started.

    Raises:
        UserError: a number is out of range.
    """
    if not 0.5 <= config.minutes < 10_000:
        raise UserError(f"minutes is {config.minutes}; give at least half a minute")
    if not 0 <= config.timing_share <= 1:
        raise UserError(f"timing_share is {config.timing_share}; it must lie between 0 and 1")
    for key in ("seeds", "candidates", "steps", "critic_steps", "episodes"):
        if config[key] < 1:
            raise UserError(f"{key} is {config[key]}; it must be at least 1")
    for stage in stages(config):
        program = stage.arguments[0].partition(".")[2]
        cli.parse(stage.arguments[1:], f"configs/{program}.py")


def stages(config: config_dict.ConfigDict) -> list[Stage]:
    """List the commands, in the order in which they run."""
    out = pathlib.Path(config.out)
    run_folder = f"--config.run={out / 'run'}"
    timing = {
        "sections": ("presets", "seeds", "decisions"),
        "presets": config.presets,
        "seeds": (config.seeds,),
        "widths": config.widths,
        "around": config.widths,
        "compared": (),
        "candidates": (config.candidates,),
        "horizons": (4,),
        "environments": config.environments,
        "results": out / "bench.json",
    }
    trained = {"steps": config.steps, "eval.episodes": config.episodes, "out": out / "run"}
    critic = {"critic.steps": config.critic_steps, "critic.discount": config.critic_discount}
    planned = {"plan.candidates": config.candidates, "eval.episodes": config.episodes}
    planned["imagined_steps"] = 0
    changes = [f"--config.{override}" for override in config.overrides]
    page = f"--config=configs/pretrain.py:{config.env},preset={config.preset}"
    return [
        Stage("timing", ["experiments.bench", *flags(timing)], config.timing_share),
        Stage("pretraining", ["experiments.pretrain", page, *flags(trained), *changes]),
        Stage("critic", ["experiments.critic", run_folder, *flags(critic)]),
        Stage("planning", ["experiments.m3pc_offline", run_folder, *flags(planned)]),
    ]


def flags(settings: Mapping[str, Any]) -> list[str]:
    """Write settings as the arguments of a command."""
    return [f"--config.{key}={value}" for key, value in settings.items()]


def run(stage: Stage, limit: float, out: pathlib.Path) -> None:
    """Run a command for at most `limit` seconds, and write down what it took."""
    cli.say(f"{stage.name}: at most {limit:.0f} s")
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", *stage.arguments])
    try:
        code = process.wait(limit)
    except subprocess.TimeoutExpired:
        process.terminate()
        try:
            code = process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
    seconds = time.monotonic() - started
    records.append(out / "stages.jsonl", {"stage": stage.name, "seconds": seconds, "code": code})
    cli.say(f"{stage.name} took {seconds:.0f} s" + f" and ended with code {code}" * bool(code))


def show(out: pathlib.Path) -> None:
    """Print the tables of what there is."""
    if (out / "bench.json").exists():
        table.show(table.read(out / "bench.json"))
    path = out / "run" / results.RESULTS_FILE
    if path.exists():
        results.print_results(records.read_jsonl(path))
    cli.say(f"everything is in {out}")


if __name__ == "__main__":
    cli.run(main)
