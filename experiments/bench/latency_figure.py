"""The figure of `experiments.bench`: the time of a decision against the number of candidates."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence

from matplotlib import figure, rc_context

from mtm_jax.plots import style


def latency(rows: Sequence[Mapping], path: str | os.PathLike) -> pathlib.Path:
    """Draw the time of an M3PC-M decision in one environment against the candidates, by width.

    Dashed lines are the times without planning. Of several compute types the last one is drawn.

    Args:
        rows: results of `experiments.bench`.
        path: the PNG file to write.
    """
    single = [
        row
        for row in rows
        if (row["section"], row["environments"], row["program"]) == ("decisions", 1, "")
    ]
    single = [row for row in single if row["compute_dtype"] == single[-1]["compute_dtype"]]
    planned = [row for row in single if row["what"] == "m3pc_m"]
    with rc_context(style.AXES):
        fig = figure.Figure(figsize=(5.4, 3.8), layout="constrained")
        axis = fig.subplots()
        widths = sorted({row["width"] for row in planned})
        for colour, width in zip(style.CYCLE, widths, strict=False):
            points = curve(planned, width)
            axis.loglog(*zip(*points, strict=True), "o-", color=colour, label=f"width {width}")
            for row in single:
                if (row["what"], row["width"]) == ("rcbc", width):
                    axis.axhline(1e3 * row["seconds"], color=colour, lw=1, ls="--")
        axis.plot([], [], color=style.GREY, lw=1, ls="--", label="without planning")
        axis.set_xlabel("candidates N")
        axis.set_ylabel("time of a decision (ms)")
        axis.legend(fontsize=8)
        return style.save(fig, path)


def curve(planned: Sequence[Mapping], width: int) -> list[tuple[int, float]]:
    """List (candidates, milliseconds) at one width, for the most frequent horizon."""
    rows = [row for row in planned if row["width"] == width]
    horizons = [row["horizon"] for row in rows]
    usual = max(set(horizons), key=horizons.count)
    points = {row["candidates"]: 1e3 * row["seconds"] for row in rows if row["horizon"] == usual}
    return sorted(points.items())
