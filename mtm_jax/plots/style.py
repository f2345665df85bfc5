"""What all figures share: colours, the style of the axes, and how a PNG file is written.

Figures are drawn on objects of their own, never through pyplot: no global state, no display.
"""

from __future__ import annotations

import io
import os
import pathlib
import re

from matplotlib import figure, rc_context

from mtm_jax.errors import UserError
from mtm_jax.types import MODALITIES

# Colours of Okabe and Ito, which colour-blind readers can tell apart.
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
SKY, YELLOW, BLACK = "#56B4E9", "#E69F00", "#333333"
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW, BLACK)
MODALITY_COLOURS = dict(zip(MODALITIES, (BLUE, YELLOW, ORANGE, GREEN), strict=True))
GREY, LIGHT_GREY = "#888888", "#EDEDED"
# Stand in a drawing of `svg` for the page's own colours of text and of fine lines.
INK, FAINT = "#010101", "#020202"
AXES = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "legend.frameon": False,
}


def save(fig: figure.Figure, path: str | os.PathLike) -> pathlib.Path:
    """Write a figure and return its path.

    Raises:
        UserError: the name does not end in .png, or the file cannot be written.
    """
    path = pathlib.Path(path)
    if path.suffix != ".png":
        raise UserError(f"figures are PNG files, and {path} does not end in .png; rename it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fig.savefig(path, dpi=160, facecolor="white")
    except OSError as error:
        raise UserError(
            f"no figure can be written to {path} ({error}); choose another file"
        ) from error
    return path


def svg(fig: figure.Figure, name: str) -> str:
    """Write a figure as an SVG element for a page: text stays text, INK and FAINT are the page's.

    Args:
        fig: without a background.
        name: no other drawing of the page has it; it keeps their inner names apart.
    """
    file = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        fig.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'(\bid="|"#|url\(#)', rf"\g<1>{name}-", text)
    return text.replace(INK, "currentColor").replace(FAINT, "var(--line)")
