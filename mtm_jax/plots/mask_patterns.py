"""The figure of mask patterns: what the model sees in training and under every prompt."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from matplotlib import figure, patches, rc_context
from matplotlib.axes import Axes

from mtm_jax import masks
from mtm_jax.config import MaskConfig
from mtm_jax.errors import UserError
from mtm_jax.plots import style
from mtm_jax.types import MODALITIES

_TRAINING_SEEDS = (2, 6)  # their masks hide different tokens
_PROMPT_TITLES = {
    "bc": "Behaviour cloning (BC)",
    "rcbc": "Return-conditioned BC (RCBC)",
    "fd": "Forward dynamics (FD)",
    "rp": "Return prediction (RP)",
    "id": "Inverse dynamics (ID)",
    "pi": "Path inference (PI)",
    "goal": "Goal reaching",
}


class _Panel(NamedTuple):
    """One mask."""

    title: str
    visible: Mapping  # modality -> [T] bool
    predicted: Sequence[str]  # modalities
    current: int | None  # slot of the current step, of prompts


def draw(path: str | os.PathLike, window: int = 8, slot: int = 3) -> pathlib.Path:
    """Draw which tokens are visible: two training masks and every prompt.

    Args:
        path: PNG file to write.
        window: steps of the window, T.
        slot: current step of the prompts.

    Raises:
        UserError: the slot is not in the window, or the file cannot be written.
    """
    if not 0 <= slot < window:
        raise UserError(f"slot {slot} is not in a window of {window} steps, 0 to {window - 1}")
    with rc_context(style.AXES):
        fig = figure.Figure(figsize=(9.6, 5.6), layout="constrained")
        axes = fig.subplots(3, 3)
        for axis, panel in zip(axes.ravel(), _panels(window, slot), strict=True):
            _draw(axis, panel)
        for axis in axes[:, 0]:
            axis.set_yticks(range(len(MODALITIES)), MODALITIES)
        for axis in axes[-1]:
            axis.set_xlabel("step of the window")
        fig.legend(handles=_legend(), loc="outside lower center", ncols=4)
        return style.save(fig, pathlib.Path(path))


def _panels(window: int, slot: int) -> Iterator[_Panel]:
    config = MaskConfig()
    weights = dict(config.modality_weights)
    for number, seed in enumerate(_TRAINING_SEEDS, start=1):
        key = jax.random.key(seed)
        visible = masks.random_autoregressive(key, window, config.fractions, weights)
        yield _Panel(f"Training, random mask {number}", visible, MODALITIES, None)
    for name, title in _PROMPT_TITLES.items():
        yield _Panel(title, masks.prompt(name, slot, window), masks.PREDICTS[name], slot)


def _draw(axis: Axes, panel: _Panel) -> None:
    window = len(panel.visible[MODALITIES[0]])
    for y, name in enumerate(MODALITIES):
        for x, visible in enumerate(np.asarray(panel.visible[name])):
            axis.add_patch(_token(x, y, name, bool(visible), name in panel.predicted))
    if panel.current is not None:
        axis.add_patch(_current_frame(panel.current, len(MODALITIES)))
    axis.set(xlim=(-0.6, window - 0.4), ylim=(len(MODALITIES) - 0.35, -0.65), yticks=[])
    axis.set_xticks(range(window))
    axis.tick_params(length=0)
    axis.grid(False)
    axis.spines[:].set_visible(False)
    axis.set_title(panel.title)


def _token(x: int, y: int, name: str, visible: bool, predicted: bool) -> patches.Rectangle:
    colour, hidden = style.MODALITY_COLOURS[name], style.LIGHT_GREY
    fill, edge = (colour, colour) if visible else (hidden, colour if predicted else hidden)
    return patches.Rectangle((x - 0.41, y - 0.36), 0.82, 0.72, fc=fill, ec=edge, lw=1.5)


def _current_frame(slot: int, height: int) -> patches.Rectangle:
    corner = (slot - 0.5, -0.56)
    return patches.Rectangle(corner, 1.0, height + 0.12, fill=False, ec=style.BLACK, lw=1.3)


def _legend() -> list[patches.Patch]:
    hidden = style.LIGHT_GREY
    return [
        patches.Patch(fc=style.BLUE, ec=style.BLUE, lw=1.5, label="visible"),
        patches.Patch(fc=hidden, ec=style.BLUE, lw=1.5, label="hidden, predicted"),
        patches.Patch(fc=hidden, ec=hidden, lw=1.5, label="hidden"),
        patches.Patch(fill=False, ec=style.BLACK, lw=1.3, label="current step"),
    ]
