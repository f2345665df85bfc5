"""Time training, decisions and the rest, beside what the machine can do at the same moment.

    python -m experiments.bench
    python -m experiments.bench --config.sections="('training','decisions')"
    python -m experiments.bench --config.figure=latency.png

Sections: training steps of the presets; of models over sizes, batches and windows; updates of the
critic; decisions by the policy alone (rcbc) and by planning, guided by returns (m3pc_m) or by a
critic (m3pc_q), over candidates, horizons, environments and widths, all read from one pass as
the released planner does (readout=fd); collecting data; PyTorch beside us; and the parts of a step
and of a decision. Times are medians over calls that alternate with a matrix product; everything is
compiled before. Results go to results/bench-DEVICE.json.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
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
from experiments.runtime import cli
from mtm_jax.agents import planner
from mtm_jax.errors import UserError
from mtm_jax.io import progress

SECTIONS = {
    "presets": training_steps.preset_works,
    "seeds": training_steps.seed_works,
    "training": training_steps.works,
    "critic": critic_updates.works,
    "decisions": decisions.works,
    "collection": collection.works,
    "peer": comparison.works,
    "parts": breakdown.works,
}
PRESETS = ("auto", "small", "base", "paper")
_COMPUTE = ("auto", "float32", "bfloat16")
_MEMORY_SHARE = 0.5  # of the device's, for one call

Row = dict[str, Any]


def main(config: config_dict.ConfigDict) -> None:
    """Time everything, print the table, write the results."""
    check(config)
    if config.stored:
        table.show(read(pathlib.Path(config.stored)))
        return
    wanted = dict.fromkeys(("float32", *workloads.dtypes(config)))
    products = {dtype: timing.find_product(dtype) for dtype in wanted}
    rows: list[Row] = []
    left_out: list[str] = []
    for section in config.sections:
        for work in SECTIONS[section](config, products):
            some, others = run(work, config, products)
            rows, left_out = rows + some, left_out + others
    places = ("results", "figure", "stored")
    settings = {k: v for k, v in config.to_dict().items() if k not in places}
    report = {"machine": hardware.describe(products, rows), "settings": settings}
    report |= {"rows": rows, "left_out": left_out}
    table.show(report)
    path = pathlib.Path(config.results or f"results/bench-{hardware.device_slug()}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1, sort_keys=True, allow_nan=False) + "\n")
    cli.say(f"results are in {path}")
    if config.figure:
        cli.say(f"the figure is {latency_figure.latency(rows, config.figure)}")


def run(
    work: workloads.Work,
    config: config_dict.ConfigDict,
    products: Mapping[str, timing.Product],
) -> tuple[list[Row], list[str]]:
    """Compile and time the programs of a work; say what was left out and why."""
    rows: list[Row] = []
    left_out = list(work.left_out)
    most = _MEMORY_SHARE * hardware.memory_gigabytes()
    with progress.progress(len(work.groups), f"timing {work.title}") as bar:
        bar.update(0, "compiling")
        for k, group in enumerate(workloads.compile_all(work), start=1):
            name = group[0].name
            gigabytes = 1e-9 * max(program.bytes or 0 for program in group)
            if gigabytes > most:
                left_out.append(f"{table.describe(name)}: needs {gigabytes:.0f} GB")
            else:
                product = products.get(name["compute_dtype"], products["float32"])
                loop = config.seconds, config.repeats, config.patience
                rows += timing.measure(group, product, *loop)
            bar.update(k, name["what"])
    return rows, left_out


def read(path: pathlib.Path) -> dict[str, Any]:
    """Read what an earlier run wrote.

    Raises:
        UserError: it is no such file.
    """
    try:
        report = json.loads(path.read_text())
        if all("section" in row for row in report["rows"]):
            return report
        raise ValueError("it was written by an earlier version")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} holds no results of this program ({error})") from error


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
        raise UserError("the figure is one of decisions; add these to the sections")
    for name in ("seconds", "longest", "patience"):
        if not 0 <= config[name] < float("inf"):
            raise UserError(f"{name} is {config[name]}; it must be finite and not negative")
    for method in planner.GUIDANCE:
        planner.plan_config(method, **config.plan)
    _check_sizes(config)


_MAY_BE_EMPTY = ("training.other_batches", "training.other_windows", "peer.decisions")
_MAY_BE_EMPTY += ("seeds", "around", "compared")


def _check_sizes(config: config_dict.ConfigDict) -> None:
    parts = ("training", "critic", "peer", "parts")
    sizes = {f"{p}.{k}": v for p in parts for k, v in config[p].items()}
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
        if len(widths) != len(batches) or not widths:
            raise UserError(f"{name}.widths {widths} and {name}.batches {batches} must be pairs")
    window, horizon = (
        decisions.network_of().config.window,
        max(*config.horizons, config.plan.horizon),
    )
    if config.plan.history + horizon > window:
        raise UserError(
            f"a history of {config.plan.history} and horizons up to {horizon} do not fit into a "
            f"window of {window}"
        )


if __name__ == "__main__":
    cli.run(main)
