"""Time training, planning and everything else, relative to the machine's rate of matmuls.

    python -m experiments.bench
    python -m experiments.bench --config.sections="('training','decisions')"
    python -m experiments.bench --config.figure=latency.png

Sections, and what they time:
  presets     training steps of the presets
  seeds       training steps of several seeds in one program
  training    training steps over widths, batches and windows, and the sampling of windows
  critic      updates of a critic (IQL)
  decisions   by the policy alone (rcbc), towards a goal (m3pc_goal), by planning (m3pc_m, m3pc_q,
              with readout=fd as in the released code), over candidates, horizons, environments
              and widths
  collection  collecting built-in data
  peer        a training step and a decision beside the same in plain PyTorch, where it is installed
  parts       the parts of a training step and of a decision

Times are medians over calls that alternate with a square matmul, so that a machine whose speed
drifts slows both; everything is compiled before. docs/performance.md explains the table. Results go
to results/bench-DEVICE.json.
"""

from __future__ import annotations

import json
import pathlib
from typing import Any

from ml_collections import config_dict

from experiments.bench import (
    breakdown,
    collection,
    critic_updates,
    decisions,
    hardware,
    latency_figure,
    table,
    timing,
    training_steps,
    workloads,
)
from experiments.bench.pytorch import comparison
from experiments.runtime import cli, runs
from mtm_jax.agents import planner
from mtm_jax.errors import UserError
from mtm_jax.io import progress

SECTIONS = {
    "presets": training_steps.preset_section,
    "seeds": training_steps.seed_section,
    "training": training_steps.section,
    "critic": critic_updates.section,
    "decisions": decisions.section,
    "collection": collection.section,
    "peer": comparison.section,
    "parts": breakdown.section,
}
PRESETS = ("auto", "small", "base", "paper")
_COMPUTE = ("auto", "float32", "bfloat16")
_MAY_BE_EMPTY = ("training.other_batches", "training.other_windows", "peer.decisions")
_MAY_BE_EMPTY += ("seeds", "around", "compared")
_MEMORY_SHARE = 0.5  # of the memory of the device, for one call

Row = dict[str, Any]


def main(config: config_dict.ConfigDict) -> None:
    """Time everything, print the table, write the results."""
    check(config)
    if config.stored:
        table.show(table.read(pathlib.Path(config.stored)))
        return
    wanted = dict.fromkeys(("float32", *workloads.dtypes(config)))
    matmuls = {dtype: timing.find_matmul(dtype) for dtype in wanted}
    path = pathlib.Path(config.results or f"results/bench-{hardware.device_slug()}.json")
    rows: list[Row] = []
    left_out: list[str] = []
    for section in config.sections:
        for workload in SECTIONS[section](config, matmuls):
            some, others = run(workload, config, matmuls)
            rows, left_out = rows + some, left_out + others
            report = write(path, config, matmuls, rows, left_out)
    table.show(report)
    cli.say(f"results: {path}")
    if config.figure:
        cli.say(f"figure: {latency_figure.latency(rows, config.figure)}")


def write(
    path: pathlib.Path,
    config: config_dict.ConfigDict,
    matmuls: timing.Matmuls,
    rows: list[Row],
    left_out: list[str],
) -> dict[str, Any]:
    """Write what has been timed so far; return it."""
    places = ("results", "figure", "stored")
    settings = {k: v for k, v in config.to_dict().items() if k not in places}
    report = {"machine": hardware.describe(matmuls, rows), "settings": settings}
    report |= {"rows": rows, "left_out": left_out}
    path.parent.mkdir(parents=True, exist_ok=True)
    runs.write_text(path, json.dumps(report, indent=1, sort_keys=True, allow_nan=False) + "\n")
    return report


def run(
    workload: workloads.Workload, config: config_dict.ConfigDict, matmuls: timing.Matmuls
) -> tuple[list[Row], list[str]]:
    """Compile and time the programs of a workload; return rows, and what was left out and why."""
    rows: list[Row] = []
    left_out = list(workload.left_out)
    most = _MEMORY_SHARE * hardware.memory_gigabytes()
    with progress.progress(len(workload.groups), f"timing {workload.title}") as bar:
        bar.update(0, "compiling")
        for k, group in enumerate(workloads.compile_all(workload), start=1):
            name = group[0].name
            gigabytes = 1e-9 * max(program.cost.bytes or 0 for program in group)
            if gigabytes > most:
                left_out.append(f"{table.describe(name)}: needs {gigabytes:.0f} GB")
            else:
                matmul = matmuls.get(name["compute_dtype"], matmuls["float32"])
                loop = config.seconds, config.repeats, config.patience
                rows += timing.measure(group, matmul, *loop)
            bar.update(k, name["what"])
    return rows, left_out


def check(config: config_dict.ConfigDict) -> None:
    """Refuse settings before anything is compiled.

    Raises:
        UserError: a setting is unknown or out of range, or the figure is no PNG file.
    """
    for name, known in (
        ("sections", tuple(SECTIONS)),
        ("presets", PRESETS),
        ("compute_dtypes", _COMPUTE),
    ):
        unknown = [value for value in config[name] if value not in known]
        if unknown or not config[name]:
            raise UserError(f"{name} are {config[name]}; choose among {', '.join(known)}")
    if config.figure and not config.figure.endswith(".png"):
        raise UserError(f"figure {config.figure!r} does not end in .png")
    if config.figure and "decisions" not in config.sections:
        raise UserError("the figure shows decisions; add these to --config.sections")
    for name in ("seconds", "longest", "patience"):
        if not 0 <= config[name] < float("inf"):
            raise UserError(f"{name} is {config[name]}; it must be finite and not negative")
    for method in planner.GUIDANCE:
        planner.plan_config(method, **config.plan)
    _check_sizes(config)
    _check_window(config)


def _check_sizes(config: config_dict.ConfigDict) -> None:
    """Refuse sizes below 1, empty lists that may not be empty, and unpaired widths and batches."""
    groups = ("training", "critic", "peer", "parts")
    sizes = {f"{g}.{k}": v for g in groups for k, v in config[g].items()}
    sizes |= {name: config[name] for name in ("widths", "candidates", "horizons", "environments")}
    sizes |= {name: config[name] for name in ("repeats", "collection_steps", "encoder_layers")}
    sizes |= {name: config[name] for name in ("seeds", "around", "compared")}
    for name, value in sizes.items():
        if not isinstance(value, tuple):
            if value < 1:
                raise UserError(f"{name} is {value}; it must be at least 1")
            continue
        if not (value or name in _MAY_BE_EMPTY) or min(value, default=1) < 1:
            raise UserError(f"{name} are {value}; give numbers of at least 1")
    for name in ("training", "peer", "parts"):
        widths, batches = config[name].widths, config[name].batches
        if len(widths) != len(batches):
            raise UserError(f"{name}.widths {widths} and {name}.batches {batches} must be pairs")


def _check_window(config: config_dict.ConfigDict) -> None:
    """Refuse plans that do not fit into the window."""
    window = decisions.network_of().config.window
    history, horizon = config.plan.history, max(*config.horizons, config.plan.horizon)
    if history + horizon > window:
        raise UserError(
            f"a history of {history} and horizons up to {horizon} do not fit into a window of "
            f"{window}"
        )


if __name__ == "__main__":
    cli.run(main)
