"""The figure of imagined rollouts beside what their actions did in the simulator."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from matplotlib import collections, figure, gridspec, lines, rc_context, ticker
from matplotlib.axes import Axes

from mtm_jax.agents import imagination
from mtm_jax.plots import style

_ZOOM = 10  # plans in the enlarged view


class _Series(NamedTuple):
    """One quantity over the episode and over its plans."""

    title: str
    episode: np.ndarray  # [t]
    imagined: np.ndarray  # [k, h]
    real: np.ndarray  # [k, h]


def draw(recording: imagination.Recording, path: str | os.PathLike) -> pathlib.Path:
    """Draw an episode, what its plans predicted, and what their actions did in the simulator.

    Of overlapping plans only the first is drawn. Below are the errors over the horizon and the sums
    of the rewards of whole plans.

    Args:
        recording: from `imagination.record`.
        path: PNG file to write.

    Raises:
        UserError: it cannot be written.
    """
    series = list(_series(recording))
    with rc_context(style.AXES):
        fig = figure.Figure(figsize=(11.0, 1.75 * len(series) + 3.4), layout="constrained")
        heights = (*(1.75 for _ in series), 2.4)
        grid = fig.add_gridspec(len(series) + 1, 2, height_ratios=heights, width_ratios=(1.5, 1.0))
        _rows(fig, grid, recording, series)
        _errors(fig.add_subplot(grid[-1, 0]), imagination.errors(recording))
        _plan_rewards(fig.add_subplot(grid[-1, 1]), recording)
        fig.legend(handles=_legend(), loc="outside upper center", ncols=3)
        return style.save(fig, path)


def _series(recording: imagination.Recording) -> Iterator[_Series]:
    for title, d in imagination.dimensions(recording.env_id).items():
        parts = recording.observations, recording.imagined_states, recording.real_states
        yield _Series(title, *(part[..., d] for part in parts))
    rewards = recording.rewards, recording.imagined_rewards, recording.real_rewards
    yield _Series("reward", *rewards)


def _rows(
    fig: figure.Figure,
    grid: gridspec.GridSpec,
    recording: imagination.Recording,
    series: list[_Series],
) -> None:
    """Draw a row per series: the episode, and an enlarged part of it if it is long."""
    steps, plans = len(recording.rewards), _apart(recording)
    near = _near(recording)
    columns = [slice(0, 2)] if near is None else [0, 1]
    for row, one in enumerate(series):
        axes = [fig.add_subplot(grid[row, column]) for column in columns]
        for axis in axes:
            _draw(axis, recording, one, plans)
            axis.set_xlim(-0.5, steps - 0.5)
            axis.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
            axis.tick_params(labelbottom=row == len(series) - 1)
        axes[0].set_title(one.title)
        if near is not None:
            axes[0].axvspan(*near, color=style.LIGHT_GREY, zorder=0)
            _zoom(axes[1], recording, one, plans, near)
            axes[1].set_title("" if row else f"steps {near[0]} to {near[1]}")
        if row == len(series) - 1:
            for axis in axes:
                axis.set_xlabel("step of the episode")


def _apart(recording: imagination.Recording) -> list[int]:
    """Choose plans that do not overlap."""
    chosen, free = [], 0
    for k, start in enumerate(recording.starts):
        if start >= free:
            chosen.append(k)
            free = start + recording.imagined_rewards.shape[1]
    return chosen


def _near(recording: imagination.Recording) -> tuple[int, int] | None:
    """Choose steps in the middle to enlarge; None if the episode is short."""
    total, width = len(recording.rewards), max(_ZOOM * recording.imagined_rewards.shape[1], 20)
    first = (total - width) // 2
    return (first, first + width) if total > 1.5 * width else None


def _draw(axis: Axes, recording: imagination.Recording, one: _Series, plans: list[int]) -> None:
    axis.plot(one.episode, color=style.BLUE, lw=1.3, alpha=0.8)
    imagined, real = [], []
    for k in plans:
        x = recording.starts[k] + np.arange(one.imagined.shape[1])
        seen = recording.lengths[k]
        imagined.append(np.stack([x, one.imagined[k]], -1))
        real.append(np.stack([x[:seen], one.real[k, :seen]], -1))
    dots = np.stack([line[0] for line in imagined])
    axis.scatter(*dots.T, s=11, color=style.ORANGE, lw=0, zorder=3)
    axis.add_collection(collections.LineCollection(imagined, colors=style.ORANGE, lw=2, zorder=3))
    dashed = {"colors": style.BLACK, "lw": 1.1, "ls": (0, (3, 1.5)), "zorder": 4}
    axis.add_collection(collections.LineCollection(real, **dashed))
    axis.autoscale_view()
    axis.yaxis.set_major_locator(ticker.MaxNLocator(4, steps=[1, 2, 5, 10]))


def _zoom(
    axis: Axes,
    recording: imagination.Recording,
    one: _Series,
    plans: list[int],
    near: tuple[int, int],
) -> None:
    """Limit both axes to a part of the episode."""
    first, last = near
    inside = [k for k in plans if first <= recording.starts[k] <= last]
    episode = one.episode[first : last + 1]
    y = np.concatenate([episode, one.imagined[inside].ravel(), one.real[inside].ravel()])
    margin = 0.08 * max(float(np.ptp(y)), 1e-6)
    axis.set(xlim=near, ylim=(y.min() - margin, y.max() + margin))


def _errors(axis: Axes, errors: imagination.Errors) -> None:
    x = np.arange(len(errors.imagined))
    axis.plot(x, errors.unchanged, color=style.GREY, lw=1.6, marker="s", ms=4, ls="--")
    axis.plot(x, errors.imagined, color=style.ORANGE, lw=2, marker="o", ms=5)
    ends = ((errors.unchanged[-1], "constant state"), (errors.imagined[-1], "model"))
    for (y, label), side in zip(sorted(ends), ("top", "bottom"), strict=True):
        axis.annotate(label, (x[-1], y), xytext=(7, 0), textcoords="offset points", va=side)
    axis.set_xlim(-0.1, x[-1] + 0.3 * max(len(x), 1))
    axis.set_xticks(x)
    axis.set_ylim(bottom=0.0)
    axis.set_xlabel("step of the plan")
    axis.set_title("RMS error of predicted states (standard deviations of the data)")


def _plan_rewards(axis: Axes, recording: imagination.Recording) -> None:
    imagined, real = (x.sum(-1) for x in (recording.imagined_rewards, recording.real_rewards))
    both = np.concatenate([imagined, real])
    axis.axline((both.mean(),) * 2, slope=1, color=style.GREY, lw=1, ls="--")
    terminated = recording.lengths < recording.imagined_rewards.shape[1]
    axis.scatter(
        real[~terminated], imagined[~terminated], s=16, color=style.ORANGE, alpha=0.6, lw=0
    )
    if terminated.any():
        axis.scatter(
            *(real[terminated], imagined[terminated]),
            s=30,
            color=style.BLACK,
            marker="x",
            label="terminated",
        )
        axis.legend(fontsize=9)
    axis.set_xlabel("simulator")
    axis.set_ylabel("model")
    axis.set_title("sum of rewards over a plan")


def _legend() -> list[lines.Line2D]:
    return [
        lines.Line2D([], [], color=style.BLUE, lw=1.3, label="episode"),
        lines.Line2D(
            *([], []),
            color=style.ORANGE,
            lw=2,
            marker="o",
            ms=4,
            label="plan, predicted by the model",
        ),
        lines.Line2D(
            *([], []), color=style.BLACK, lw=1.1, ls="--", label="plan, executed in the simulator"
        ),
    ]
