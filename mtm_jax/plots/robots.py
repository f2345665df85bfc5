"""Drawings of planar robots, from the kinematics of MuJoCo: no renderer and no display is needed.

The robots of MuJoCo's locomotion tasks consist of capsules and move in a plane.
"""

from __future__ import annotations

import os
import pathlib

import imageio.v3 as imageio
import mujoco
import numpy as np
from matplotlib import collections, colors, ticker
from matplotlib.axes import Axes

from mtm_jax.errors import UserError

VIEW = 2.6  # width of a panel in metres
_GROUND = 0.18  # depth of the visible ground in metres
_FRAME_MS, _LAST_FRAME_MS = 60, 1200


class Robot:
    """The capsules of a robot, projected onto its plane of motion."""

    def __init__(self, model: mujoco.MjModel):
        """Find the capsules.

        Raises:
            UserError: there are none.
        """
        self._model, self._data = model, mujoco.MjData(model)
        self._ids = np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_CAPSULE)
        if not len(self._ids):
            raise UserError("this robot has no capsules to draw; only planar walkers are drawn")
        self.radii = model.geom_size[self._ids, 0]  # [g] metres
        # Limbs with another colour than the first one, such as the other leg.
        rgba = model.geom_rgba[self._ids]
        self.other = np.any(rgba != rgba[0], -1)  # [g] bool

    def axes(self, qpos: np.ndarray) -> np.ndarray:
        """Return the ends of the axes of the capsules, [g, 2, 2] as (x, z) in metres."""
        self._data.qpos[:] = qpos
        mujoco.mj_kinematics(self._model, self._data)
        centre = self._data.geom_xpos[self._ids]
        direction = self._data.geom_xmat[self._ids].reshape(-1, 3, 3)[:, :, 2]
        reach = self._model.geom_size[self._ids, 1:2] * direction
        return np.stack([centre - reach, centre + reach], 1)[..., [0, 2]]


def panel(axis: Axes, ratio: float) -> Axes:
    """Set up the ground, the height and the moving distance marks.

    Args:
        axis: of the panel.
        ratio: its height as a share of its width.
    """
    height = VIEW * ratio
    axis.set_ylim(-_GROUND, height - _GROUND)
    axis.axhspan(-1.0, 0.0, color="#E9E4DA", zorder=0)
    axis.axhline(0.0, color="#8A8170", lw=1.2, zorder=1)
    axis.xaxis.set_major_locator(ticker.MultipleLocator(0.5))
    axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda x, _: _mark(axis, x)))
    axis.set_yticks([])
    axis.tick_params(length=0, labelsize=7, pad=2)
    axis.spines[:].set_visible(False)
    return axis


def _mark(axis: Axes, x: float) -> str:
    """Label a distance unless the label would reach into the other panel."""
    return f"{x:g} m" if abs(x - np.mean(axis.get_xlim())) < VIEW / 2 - 0.2 else ""


def limbs(
    axis: Axes, robot: Robot, points: float, colour: str, other: str, alpha: float = 1.0
) -> collections.LineCollection:
    """Prepare capsules as round lines, each above a wider line that outlines it."""
    fills = [other if different else colour for different in robot.other]
    edges = [_darker(fill) for fill in fills]
    widths = 2.0 * points * robot.radii
    limbs = collections.LineCollection(
        [np.zeros((2, 2))] * (2 * len(fills)),
        colors=[c for pair in zip(edges, fills, strict=True) for c in pair],
        linewidths=[w for width in widths for w in (width, width - 1.6)],
        capstyle="round",
        alpha=alpha,
        zorder=2,
    )
    axis.add_collection(limbs, autolim=False)
    return limbs


def _darker(colour: str) -> tuple[float, float, float]:
    return tuple(0.65 * part for part in colors.to_rgb(colour))


def check_gif(path: str | os.PathLike) -> pathlib.Path:
    """Return the path of a video.

    Raises:
        UserError: it does not end in .gif.
    """
    path = pathlib.Path(path)
    if path.suffix != ".gif":
        raise UserError(f"videos are GIF files, and {path} does not end in .gif; rename it")
    return path


def write_gif(pictures: list[np.ndarray], path: pathlib.Path) -> pathlib.Path:
    """Write pictures, [height, width, 3] uint8 each, as a video; the last one stays for a while.

    Raises:
        UserError: it cannot be written.
    """
    shown = [_FRAME_MS] * (len(pictures) - 1) + [_LAST_FRAME_MS]
    duration = shown if len(shown) > 1 else shown[0]  # Pillow takes no list for a single frame
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        imageio.imwrite(path, np.stack(pictures), duration=duration, loop=0, bits=5)
    except OSError as error:
        raise UserError(
            f"no video can be written to {path} ({error}); choose another file"
        ) from error
    return path
