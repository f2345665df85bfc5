"""A video of a planar robot beside what its model imagined, drawn from the kinematics of MuJoCo.

It needs no renderer and no display: the robots of MuJoCo's locomotion tasks consist of capsules and
move in a plane.
"""

from __future__ import annotations

import contextlib
import os
import pathlib

import imageio.v3 as imageio
import mujoco
import numpy as np
from matplotlib import collections, colors, figure, rc_context, ticker
from matplotlib.axes import Axes
from matplotlib.backends import backend_agg

from mtm_jax.agents import imagination
from mtm_jax.envs import make
from mtm_jax.errors import UserError
from mtm_jax.io import progress
from mtm_jax.plots import style

_SIZE, _DPI = (6.4, 3.3), 80  # inches, pixels per inch
_VIEW = 2.6  # width of a panel in metres
_GROUND = 0.18  # depth of the visible ground in metres
_PANELS = ((0.012, 0.09, 0.482, 0.75), (0.506, 0.09, 0.482, 0.75))  # left, bottom, width, height
_FRAME_MS, _LAST_FRAME_MS = 60, 1200
_GREY = "#D0D0D0"


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


def draw(
    recording: imagination.Recording, path: str | os.PathLike, frames: int = 140
) -> pathlib.Path:
    """Draw the episode beside the last state that each of its plans imagined.

    A frame shows the last step of a plan: on the left the robot in the episode, on the right the
    state that was imagined h - 1 steps earlier, when the plan was made, over a grey robot, which
    executed the plan in the simulator.

    Args:
        recording: from `imagination.record`.
        path: GIF file to write.
        frames: largest number of frames; they are spread evenly over the plans.

    Raises:
        UserError: it cannot be written.
    """
    path = pathlib.Path(path)
    if path.suffix != ".gif":
        raise UserError(f"videos are GIF files, and {path} does not end in .gif; rename it")
    chosen = _chosen(recording, frames)
    with contextlib.closing(make.make(recording.env_id)) as env, rc_context(style.AXES):
        stage = _Stage(Robot(env.unwrapped.model), recording, env.unwrapped.dt)
        pictures = []
        with progress.progress(len(chosen), "drawing the video", unit="frames") as bar:
            for count, k in enumerate(chosen, start=1):
                pictures.append(stage.draw(int(k)))
                bar.update(count)
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


def imagined_qpos(recording: imagination.Recording, dt: float) -> np.ndarray:
    """Reconstruct the simulator's positions from imagined observations, [k, h, nq].

    Observations do not contain the horizontal position. It starts from the real one at the time of
    the plan and integrates the imagined velocity.

    Args:
        recording: of a planar robot, whose observations are qpos[1:] followed by qvel.
        dt: duration of a step in seconds.
    """
    positions = recording.qpos.shape[1] - 1
    velocity = recording.imagined_states[..., positions]
    way = np.cumsum(0.5 * dt * (velocity[:, 1:] + velocity[:, :-1]), axis=1)
    x = recording.qpos[recording.starts, :1] + np.pad(way, ((0, 0), (1, 0)))
    return np.concatenate([x[..., None], recording.imagined_states[..., :positions]], -1)


def _chosen(recording: imagination.Recording, frames: int) -> np.ndarray:
    """Choose plans that end within the episode; the first plan if none does."""
    last = recording.starts + recording.imagined_rewards.shape[1] - 1
    inside = np.flatnonzero(last < len(recording.rewards))
    if not len(inside):
        return np.zeros(1, int)
    count = min(max(frames, 1), len(inside))
    return inside[np.linspace(0, len(inside) - 1, count).round().astype(int)]


class _Stage:
    """Both panels, redrawn for every frame."""

    def __init__(self, robot: Robot, recording: imagination.Recording, dt: float):
        self._robot, self._recording = robot, recording
        self._imagined = imagined_qpos(recording, dt)
        self._fig = figure.Figure(figsize=_SIZE, dpi=_DPI, facecolor="white")
        self._canvas = backend_agg.FigureCanvasAgg(self._fig)
        self._axes = [_panel(self._fig.add_axes(box)) for box in _PANELS]
        points = 72.0 * _SIZE[0] * _PANELS[0][2] / _VIEW  # of a metre
        left, right = self._axes
        blue, orange = (style.BLUE, style.SKY), (style.ORANGE, style.YELLOW)
        self._real = _limbs(left, robot, points, *blue)
        self._ghost = _limbs(right, robot, points, _GREY, _GREY)
        self._dream = _limbs(right, robot, points, *orange, alpha=0.85)
        ahead = recording.imagined_rewards.shape[1] - 1
        left.set_title("episode", color=style.BLUE)
        right.set_title(f"imagined {ahead} steps earlier", color=style.ORANGE)
        self._caption = self._fig.text(0.014, 0.945, "", fontsize=10)
        note = "grey: the plan in the simulator"
        self._fig.text(0.986, 0.945, note, fontsize=8, color="#777777", ha="right")

    def draw(self, k: int) -> np.ndarray:
        """Draw the last step of a plan, [height, width, 3] uint8."""
        recording = self._recording
        start, last = int(recording.starts[k]), len(recording.rewards) - 1
        n = min(recording.imagined_rewards.shape[1] - 1, last - start)
        step = start + n
        for limbs, qpos in (
            (self._real, recording.qpos[step]),
            (self._ghost, recording.real_qpos[k, n]),
            (self._dream, self._imagined[k, n]),
        ):
            limbs.set_segments(np.repeat(self._robot.axes(qpos), 2, axis=0))
        x = float(recording.qpos[step, 0])
        for axis in self._axes:
            axis.set_xlim(x - _VIEW / 2, x + _VIEW / 2)
        earned = recording.rewards[: step + 1].sum()
        self._caption.set_text(f"{recording.env_id}   step {step}   return {earned:.1f}")
        self._canvas.draw()
        return np.asarray(self._canvas.buffer_rgba())[..., :3].copy()


def _panel(axis: Axes) -> Axes:
    """Set up the ground, the height and the moving distance marks."""
    height = _VIEW * (_PANELS[0][3] * _SIZE[1]) / (_PANELS[0][2] * _SIZE[0])
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
    return f"{x:g} m" if abs(x - np.mean(axis.get_xlim())) < _VIEW / 2 - 0.2 else ""


def _limbs(
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
