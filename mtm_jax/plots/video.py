"""A video of a planar robot beside what its model imagined; no renderer is needed (`robots`)."""

from __future__ import annotations

import contextlib
import os
import pathlib

import numpy as np
from matplotlib import figure, rc_context
from matplotlib.backends import backend_agg

from mtm_jax.agents import imagination
from mtm_jax.envs import make
from mtm_jax.io import progress
from mtm_jax.plots import robots, style

_SIZE, _DPI = (6.4, 3.3), 80  # inches, pixels per inch
_PANELS = ((0.012, 0.09, 0.482, 0.75), (0.506, 0.09, 0.482, 0.75))  # left, bottom, width, height
_RATIO = (_PANELS[0][3] * _SIZE[1]) / (_PANELS[0][2] * _SIZE[0])  # height to width
_GREY = "#D0D0D0"


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
    path = robots.check_gif(path)
    chosen = _chosen(recording, frames)
    with contextlib.closing(make.make(recording.env_id)) as env, rc_context(style.AXES):
        stage = _Stage(robots.Robot(env.unwrapped.model), recording, env.unwrapped.dt)
        pictures = []
        with progress.progress(len(chosen), "drawing the video", unit="frames") as bar:
            for count, k in enumerate(chosen, start=1):
                pictures.append(stage.draw(int(k)))
                bar.update(count)
    return robots.write_gif(pictures, path)


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

    def __init__(self, robot: robots.Robot, recording: imagination.Recording, dt: float):
        self._robot, self._recording = robot, recording
        self._imagined = imagined_qpos(recording, dt)
        self._fig = figure.Figure(figsize=_SIZE, dpi=_DPI, facecolor="white")
        self._canvas = backend_agg.FigureCanvasAgg(self._fig)
        self._axes = [robots.panel(self._fig.add_axes(box), _RATIO) for box in _PANELS]
        points = 72.0 * _SIZE[0] * _PANELS[0][2] / robots.VIEW  # of a metre
        left, right = self._axes
        blue, orange = (style.BLUE, style.SKY), (style.ORANGE, style.YELLOW)
        self._real = robots.limbs(left, robot, points, *blue)
        self._ghost = robots.limbs(right, robot, points, _GREY, _GREY)
        self._dream = robots.limbs(right, robot, points, *orange, alpha=0.85)
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
            axis.set_xlim(x - robots.VIEW / 2, x + robots.VIEW / 2)
        earned = recording.rewards[: step + 1].sum()
        self._caption.set_text(f"{recording.env_id}   step {step}   return {earned:.1f}")
        self._canvas.draw()
        return np.asarray(self._canvas.buffer_rgba())[..., :3].copy()
