"""Time training steps and decisions, beside what the machine can do at the same moment.

    python -m experiments.bench
    python -m experiments.bench --config.figure=latency.png

Decisions are those of M3PC figure 11: by the policy alone (rcbc) and by planning, guided by
returns (m3pc_m) or by a critic (m3pc_q), over candidates, horizons, environments and widths. Times
are medians over calls that alternate with a matrix product; everything is compiled before. The
planner without pruning runs in one loop with the pruned one. Results go to
results/bench-DEVICE.json.
"""

from __future__ import annotations

import functools
import json
import os
import pathlib
import platform
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import rich.box
import rich.console
import rich.table
from ml_collections import config_dict

from experiments import bench_figure, bench_planning, bench_timing, bench_training, cli
from mtm_jax import model, planner, progress, results
from mtm_jax.config import ModelConfig
from mtm_jax.errors import UserError
from mtm_jax.types import ModalitySpec

# Hopper's dimensions.
MODALITIES = (
    ModalitySpec("states", 11),
    ModalitySpec("returns", 1),
    ModalitySpec("actions", 3, head="tanh_normal"),
    ModalitySpec("rewards", 1),
)
_MEMORY_SHARE = 0.5  # of the device's, for the temporaries of one call

_COLUMNS = ("", "width", "N", "h", "envs", "time", "a second", "GMAC", "GFLOP/s", "share")
_COLUMNS += ("to pruned",)

Row = dict[str, Any]


def main(config: config_dict.ConfigDict) -> None:
    """Time everything, print the table, write the results."""
    check(config)
    product, peak = bench_timing.find_product()
    rows: list[Row] = []
    left_out: list[str] = []
    for width in config.widths:
        some, others = bench_width(config, width, product, peak)
        rows, left_out = rows + some, left_out + others
    settings = {k: v for k, v in config.to_dict().items() if k not in ("results", "figure")}
    report = {"machine": describe_machine(product, rows), "settings": settings}
    report |= {"rows": rows, "left_out": left_out}
    show(report)
    path = pathlib.Path(config.results or f"results/bench-{device_slug()}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1, sort_keys=True, allow_nan=False) + "\n")
    cli.say(f"results are in {path}")
    if config.figure:
        cli.say(f"the figure is {bench_figure.latency(rows, config.figure)}")


def check(config: config_dict.ConfigDict) -> None:
    """Refuse settings before anything is compiled.

    Raises:
        UserError: a setting is out of range, or the figure is no PNG file.
    """
    for name in ("repeats", "batch_size"):
        if config[name] < 1:
            raise UserError(f"{name} is {config[name]}; it must be at least 1")
    for name in ("widths", "candidates", "horizons", "environments"):
        if not config[name] or min(config[name]) < 1:
            raise UserError(f"{name} are {tuple(config[name])}; give numbers of at least 1")
    for name in ("seconds", "longest"):
        if not 0 <= config[name] < float("inf"):
            raise UserError(f"{name} is {config[name]}; it must be finite and not negative")
    for method in planner.GUIDANCE:
        planner.plan_config(method, **config.plan)
    if config.figure and not config.figure.endswith(".png"):
        raise UserError(f"figure {config.figure!r} does not end in .png")
    window, horizon = ModelConfig(MODALITIES).window, max(*config.horizons, config.plan.horizon)
    if config.plan.history + horizon > window:
        raise UserError(
            f"a history of {config.plan.history} and horizons up to {horizon} do not fit into a "
            f"window of {window}"
        )


def bench_width(
    config: config_dict.ConfigDict, width: int, product: bench_timing.Product, peak: float
) -> tuple[list[Row], list[str]]:
    """Time training and decisions at one width; say what was left out and why."""
    sizes = {"width": width, "encoder_layers": config.encoder_layers}
    network = model.make_model(ModelConfig(MODALITIES, dropout=0.0, **sizes))
    groups, left_out = [], []
    for group in bench_planning.points(config, width):
        needed = functools.partial(bench_planning.seconds_at, peak, network, config=config)
        while needed(group) > config.longest:
            reason = f"{needed(group):.2g} s a round at the rate of products"
            left_out.append(f"{_say(group[-1]._asdict(), width)}: {reason}")
            group = group[:-1]
        groups += [group] if group else []
    programs = bench_training.prepare(network, config.batch_size)
    programs += bench_planning.prepare(network, groups, config.plan.history)
    rows: list[Row] = []
    with progress.progress(len(programs), f"timing width {width}") as bar:
        for k, group in enumerate(programs, start=1):
            gigabytes = 1e-9 * sum(p.temporary_bytes for p in group)
            if gigabytes > _MEMORY_SHARE * memory_gigabytes():
                left_out.append(f"{_say(group[-1].name, width)}: needs {gigabytes:.0f} GB")
            else:
                rows += bench_timing.measure(group, product, config.seconds, config.repeats)
            bar.update(k)
    return rows, left_out


def describe_machine(product: bench_timing.Product, rows: Sequence[Row]) -> dict[str, Any]:
    """Say what ran this and what its matrix products reached."""
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "product_size": product.size,
        "product_gflops": float(np.median([row["product_gflops"] for row in rows])),
        "versions": results.versions(),
    }


def cpu_name() -> str:
    """Name the model of the processor, as Linux does where it does."""
    file = pathlib.Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def device_slug() -> str:
    """Name the device for a file name."""
    return re.sub(r"[^a-z0-9]+", "-", jax.devices()[0].device_kind.lower()).strip("-")


def memory_gigabytes() -> float:
    """Memory of the device, or of the machine where the device tells none."""
    told = jax.devices()[0].memory_stats() or {}
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return 1e-9 * told.get("bytes_limit", physical)


def show(report: dict[str, Any]) -> None:
    """Print the rows, a section for each width."""
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, caption_justify="left", padding=(0, 1, 0, 0))
    for column in _COLUMNS:
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    rows = report["rows"]
    for k, row in enumerate(rows):
        last = k + 1 == len(rows) or rows[k + 1]["width"] != row["width"]
        table.add_row(*_cells(row), end_section=last)
    table.caption = caption(report)
    console = rich.console.Console()
    console.width = console.width if console.is_terminal else 100
    console.print(table)


def caption(report: dict[str, Any]) -> str:
    """Say what the figures are shares of, and what is missing."""
    machine = report["machine"]
    parts = [
        f"{machine['versions']['device']}, {machine['cores']} cores of {machine['cpu']}: "
        f"{machine['product_gflops']:.0f} GFLOP/s in float32 products of "
        f"{machine['product_size']} squared, measured between the calls; share is of these.",
        "A second: decisions of all environments, or calls. GMAC: 1e9 multiply-adds of a call.",
    ]
    parts += [f"Left out: {reason}." for reason in report["left_out"]]
    return "\n".join(parts)


def _cells(row: Row) -> list[str]:
    plain = " plain" if row["pruned"] is False else ""
    batch = f" of {row['batch_size']}" if "batch_size" in row else ""
    settings = (row[key] for key in ("width", "candidates", "horizon", "environments"))
    counted = row["multiply_adds"] > 0
    return [
        row["what"] + plain + batch,
        *("" if value is None else str(value) for value in settings),
        f"{1e3 * row['seconds']:.2f} ms",
        f"{row['per_second']:.{1 if row['per_second'] >= 10 else 2}f}",
        f"{1e-9 * row['multiply_adds']:.3f}" if counted else "",
        f"{row['gflops']:.1f}" if counted else "",
        f"{100 * row['share']:.0f}%" if counted else "",
        "" if row["ratio_to_first"] is None else f"{row['ratio_to_first']:.2f}x",
    ]


def _say(point: dict[str, Any], width: int) -> str:
    settings = {k: v for k, v in point.items() if v is not None and k not in ("method", "what")}
    named = ", ".join(f"{k} {v}" for k, v in (settings | {"width": width}).items())
    return f"{point.get('method') or point.get('what')} with {named}"


if __name__ == "__main__":
    cli.run(main)
