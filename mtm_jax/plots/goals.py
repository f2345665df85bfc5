"""Figures of episodes that follow a motion: the joint that counts, and the states that are visited.

Episodes are a mapping, method -> observations [L, E, S] of E episodes, row 0 is the start.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping

import numpy as np
from matplotlib import figure, rc_context
from matplotlib.axes import Axes

from mtm_jax.plots import style

COLOURS = {"m3pc_goal": style.BLUE, "goal_mask": style.ORANGE}
_SHOWN = 4000  # states of the data that are drawn
_OTHERS = (style.GREEN, style.PURPLE, style.SKY)


def colour(method: str, place: int) -> str:
    """Choose the colour of a method."""
    return COLOURS.get(method, _OTHERS[place % len(_OTHERS)])


def tracking(
    episodes: Mapping[str, np.ndarray],
    motion: np.ndarray,
    steps: np.ndarray,
    dimension: int,
    label: str,
    path: str | os.PathLike,
) -> pathlib.Path:
    """Draw a joint in every episode against where the motion has it, a panel for each method.

    Args:
        episodes: of each method.
        motion: [L, S].
        steps: [W], of the goals.
        dimension: of the observation, the joint.
        label: its name.
        path: PNG file to write.

    Raises:
        UserError: it cannot be written.
    """
    with rc_context(style.AXES):
        fig, axes = _panels(len(episodes), 3.2)
        for place, (axis, (method, found)) in enumerate(zip(axes, episodes.items(), strict=True)):
            lines = axis.plot(
                found[:, :, dimension], color=colour(method, place), lw=0.8, alpha=0.6
            )
            lines[0].set_label("episodes")
            axis.plot(motion[:, dimension], color=style.BLACK, lw=1.2, ls="--", label="motion")
            if len(steps) < len(motion) // 2:
                at = steps[steps < len(motion)]
                axis.plot(at, motion[at, dimension], ".", color=style.BLACK, ms=4, label="goals")
            axis.set_title(method)
            axis.set_xlabel("step of the episode")
        axes[0].set_ylabel(label)
        axes[-1].legend(fontsize=8)
        return style.save(fig, path)


def visited(
    episodes: Mapping[str, np.ndarray],
    motion: np.ndarray,
    data: np.ndarray,
    path: str | os.PathLike,
) -> pathlib.Path:
    """Draw the states of all episodes over those of the data, in two principal components.

    The components are those of the data, each dimension in its standard deviations.

    Args:
        episodes: of each method.
        motion: [L, S].
        data: [n, S].
        path: PNG file to write.

    Raises:
        UserError: it cannot be written.
    """
    project = principal(data)
    shown = data[np.linspace(0, len(data) - 1, min(len(data), _SHOWN)).astype(int)]
    with rc_context(style.AXES):
        fig, axes = _panels(len(episodes), 4.2)
        for place, (axis, (method, found)) in enumerate(zip(axes, episodes.items(), strict=True)):
            dots = {"s": 3, "lw": 0, "rasterized": True}
            axis.scatter(*project(shown).T, color="#C8C8C8", label="data", **dots)
            states = project(found.reshape(-1, found.shape[-1]))
            axis.scatter(*states.T, color=colour(method, place), alpha=0.4, label="visited", **dots)
            axis.plot(*project(motion).T, color=style.BLACK, lw=1.2, label="motion")
            axis.set_title(method)
            axis.set_xlabel("first principal component")
        axes[0].set_ylabel("second principal component")
        axes[-1].legend(fontsize=8, markerscale=3)
        return style.save(fig, path)


def principal(data: np.ndarray):
    """Return the projection onto the first two principal components: [..., S] -> [..., 2]."""
    mean, std = data.mean(0), data.std(0)
    scale = np.where(std > 0, std, 1.0)
    _, _, components = np.linalg.svd((data - mean) / scale, full_matrices=False)
    return lambda states: ((states - mean) / scale) @ components[:2].T


def reached(errors: Mapping[str, Mapping[int, float]], path: str | os.PathLike) -> pathlib.Path:
    """Draw how far from a recorded state k steps later each way of acting ends.

    Args:
        errors: way of acting -> k -> error, in standard deviations of the data.
        path: PNG file to write.

    Raises:
        UserError: it cannot be written.
    """
    with rc_context(style.AXES):
        fig = figure.Figure(figsize=(5.2, 3.4), layout="constrained")
        axis = fig.subplots()
        for place, (name, found) in enumerate(errors.items()):
            shade = style.GREY if name == "recorded" else colour(name, place)
            axis.plot(list(found), list(found.values()), "o-", color=shade, ms=4, label=name)
        axis.set_xlabel("steps to the goal")
        axis.set_ylabel("RMS error (standard deviations)")
        axis.set_ylim(bottom=0.0)
        axis.legend(fontsize=8)
        return style.save(fig, path)


def _panels(count: int, height: float) -> tuple[figure.Figure, list[Axes]]:
    fig = figure.Figure(figsize=(4.6 * count + 0.6, height), layout="constrained")
    axes = fig.subplots(1, count, sharex=True, sharey=True, squeeze=False)[0]
    return fig, list(axes)
