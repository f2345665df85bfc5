"""Small drawings for the page: each fits a phone and takes the page's colours, dark or light."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import figure, patches, rc_context, ticker
from matplotlib.axes import Axes

from mtm_jax.plots import style
from mtm_jax.types import MODALITIES

_SIZE = (3.5, 2.7)  # inches; 336 pixels wide
_OUTLIER = 20  # times the median: values that would flatten the rest of a curve
_AXES = style.AXES | {
    "font.size": 11,  # 14 pixels and more, should a narrow screen shrink them
    "axes.titlesize": 11,
    "text.color": style.INK,
    "axes.labelcolor": style.INK,
    "axes.titlecolor": style.INK,
    "xtick.color": style.GREY,
    "ytick.color": style.GREY,
    "xtick.labelcolor": style.INK,
    "ytick.labelcolor": style.INK,
    "grid.color": style.FAINT,
}


class Curve(NamedTuple):
    """Points of a curve, [n, 2]."""

    points: np.ndarray
    colour: str
    dashed: bool = False


def curves(name: str, title: str, lines: Sequence[Curve], label: str = "gradient steps") -> str:
    """Draw curves on a scale that fits their range. Returns SVG."""
    with rc_context(_AXES):
        fig, axis = _axes()
        for line in lines:
            single = len(line.points) == 1
            form = {"ls": "--" if line.dashed else "-", "marker": "o" if single else None, "ms": 4}
            axis.plot(*line.points.T, color=line.colour, lw=1.5, **form)
        _scale(axis, np.concatenate([line.points[:, 1] for line in lines]))
        axis.set_title(title)
        axis.set_xlabel(label)
        axis.xaxis.set_major_locator(ticker.MaxNLocator(4))
        axis.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
        return style.svg(fig, name)


def _scale(axis: Axes, values: np.ndarray) -> None:
    """Choose a scale on which small and large values can be read, with plain numbers."""
    low, high = values.min(), values.max()
    if low > 0 and high > 4 * low:
        axis.set_yscale("log")
        if high < 30 * low:  # few powers of ten to label
            axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.yaxis.set_minor_formatter(ticker.NullFormatter())
    elif low <= 0 and np.abs(values).max() > _OUTLIER * np.median(np.abs(values)):
        axis.set_yscale("symlog", linthresh=1.0)
    axis.yaxis.set_major_formatter(ticker.FuncFormatter(lambda y, _: f"{y:g}"))


def episodes(
    name: str,
    scores: Mapping[str, Sequence[float]],
    colours: Mapping[str, str],
    limits: tuple[float, float],
) -> str:
    """Draw a dot per episode and a bar at the mean, for every way of acting. Returns SVG.

    Args:
        name: of the drawing.
        scores: label -> score of each episode.
        colours: label -> colour.
        limits: of the axis of scores, which panels side by side share.
    """
    with rc_context(_AXES):
        fig, axis = _axes(height=0.9 + 0.42 * len(scores))
        for place, (label, values) in enumerate(scores.items()):
            spread = np.linspace(-0.2, 0.2, len(values)) if len(values) > 1 else np.zeros(1)
            axis.scatter(values, place + spread, s=16, color=colours[label], alpha=0.55, lw=0)
            axis.plot(
                [np.mean(values)] * 2, [place - 0.34, place + 0.34], color=colours[label], lw=3
            )
        axis.set_yticks(range(len(scores)), [_short(label) for label in scores])
        for text in axis.get_yticklabels():
            text.set_parse_math(False)
        axis.set_ylim(len(scores) - 0.4, -0.6)
        axis.set_xlim(limits)
        axis.xaxis.set_major_locator(ticker.MaxNLocator(5))
        axis.grid(axis="y", visible=False)
        axis.set_xlabel("normalised score of an episode")
        return style.svg(fig, name)


def _short(label: str) -> str:
    return label if len(label) <= 18 else f"{label[:17]}…"


def calibration(name: str, title: str, predicted: np.ndarray, followed: np.ndarray) -> str:
    """Draw what was predicted against what followed, [k] each, and the line of both the same."""
    with rc_context(_AXES):
        fig, axis = _axes()
        both = np.concatenate([predicted, followed])
        axis.axline((both.mean(),) * 2, slope=1, color=style.GREY, lw=1, ls="--")
        axis.scatter(followed, predicted, s=16, color=style.ORANGE, alpha=0.65, lw=0)
        margin = 0.06 * max(float(np.ptp(both)), 1e-6)
        axis.set(
            xlim=(followed.min() - margin, followed.max() + margin),
            ylim=(predicted.min() - margin, predicted.max() + margin),
        )
        for part in (axis.xaxis, axis.yaxis):
            part.set_major_locator(ticker.MaxNLocator(4))
        axis.set_title(title)
        axis.set_xlabel("followed")
        axis.set_ylabel("predicted")
        return style.svg(fig, name)


def mask(name: str, title: str, visible: Mapping[str, np.ndarray]) -> str:
    """Draw the tokens of a window, modality -> share of masks that show it, [T]. Returns SVG."""
    names = [m for m in MODALITIES if m in visible]
    window = len(visible[names[0]])
    with rc_context(_AXES):
        fig, axis = _axes(height=0.85 + 0.27 * len(names))
        for y, modality in enumerate(names):
            for x, share in enumerate(visible[modality]):
                axis.add_patch(_token(x, y, style.MODALITY_COLOURS[modality], float(share)))
        axis.set(xlim=(-0.6, window - 0.4), ylim=(len(names) - 0.4, -0.6))
        axis.set_yticks(range(len(names)), names)
        axis.set_xticks(range(0, window, max(1, window // 8)))
        axis.tick_params(length=0)
        axis.grid(False)
        axis.spines[:].set_visible(False)
        axis.set_title(title)
        axis.set_xlabel("step of the window")
        return style.svg(fig, name)


def _token(x: int, y: int, colour: str, share: float) -> patches.Rectangle:
    """Draw a token with a frame of its colour, as opaque as it is often visible."""
    red, green, blue = (int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5))
    fill = (red, green, blue, share)
    return patches.Rectangle((x - 0.4, y - 0.36), 0.8, 0.72, fc=fill, ec=colour, lw=1.0)


def _axes(height: float = _SIZE[1]) -> tuple[figure.Figure, Axes]:
    fig = figure.Figure(figsize=(_SIZE[0], height), layout="constrained")
    return fig, fig.subplots()
