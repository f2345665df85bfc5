"""A robot that follows a motion: a video and a filmstrip, over the motion's poses in grey."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Mapping

import numpy as np
from matplotlib import figure, rc_context
from matplotlib.backends import backend_agg

from mtm_jax.envs import make
from mtm_jax.envs.goals import kinematics
from mtm_jax.io import progress
from mtm_jax.plots import goals, robots, style

_PANEL, _DPI = (3.1, 2.5), 80  # inches of a panel, pixels per inch
_GREY = "#CFCFCF"
_INSIDE = (0.02, 0.09, 0.96, 0.78)  # left, bottom, width, height of a panel in its cell


def poses(observations: np.ndarray, env_id: str, dt: float) -> np.ndarray:
    """Compute the poses of an episode, [L, S] -> [L, nq]; the way is integrated from velocities."""
    qpos, qvel = kinematics.split(observations, env_id)
    qpos[:, 0] = np.cumsum(qvel[:, 0]) * dt
    return qpos


def video(
    episodes: Mapping[str, np.ndarray],
    motion: np.ndarray,
    env_id: str,
    path: str | os.PathLike,
    frames: int = 120,
) -> pathlib.Path:
    """Draw the methods side by side.

    Args:
        episodes: method -> observations [L, S] of one episode.
        motion: [L, S].
        env_id: the environment, of a robot of `kinematics.ROBOTS`.
        path: GIF file to write.
        frames: largest number of frames, spread evenly over the episode.

    Raises:
        UserError: it cannot be written.
    """
    path, length = robots.check_gif(path), len(motion)
    steps = np.linspace(0, length - 1, min(frames, length)).round().astype(int)
    with _robot(env_id) as (robot, dt), rc_context(style.AXES):
        fig = figure.Figure(figsize=(_PANEL[0] * len(episodes), _PANEL[1]), dpi=_DPI)
        canvas = backend_agg.FigureCanvasAgg(fig)
        cells = [
            _Cell(fig, (0, place), (1, len(episodes)), robot, goals.colour(name, place))
            for place, name in enumerate(episodes)
        ]
        found = [poses(x, env_id, dt) for x in episodes.values()]
        wanted, pictures = poses(motion, env_id, dt), []
        with progress.progress(len(steps), "drawing the video", unit="frames") as bar:
            for count, step in enumerate(steps, start=1):
                for cell, name, pose in zip(cells, episodes, found, strict=True):
                    cell.show(pose[step], wanted[step], f"{name}, step {step}")
                canvas.draw()
                pictures.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
                bar.update(count)
    return robots.write_gif(pictures, path)


def filmstrip(
    episodes: Mapping[str, np.ndarray],
    motion: np.ndarray,
    env_id: str,
    path: str | os.PathLike,
    pictures: int = 6,
) -> pathlib.Path:
    """Draw a row of poses for each method; arguments as of `video`, the file is a PNG.

    Raises:
        UserError: it cannot be written.
    """
    steps = np.linspace(0, len(motion) - 1, pictures).round().astype(int)
    with _robot(env_id) as (robot, dt), rc_context(style.AXES):
        size = (_PANEL[0] * pictures * 0.7, _PANEL[1] * len(episodes) * 0.7)
        fig, wanted = figure.Figure(figsize=size), poses(motion, env_id, dt)
        for row, (name, observations) in enumerate(episodes.items()):
            pose, shade = poses(observations, env_id, dt), goals.colour(name, row)
            for column, step in enumerate(steps):
                cell = _Cell(fig, (row, column), (len(episodes), pictures), robot, shade)
                title = f"{name}, step {step}" if column == 0 else f"step {step}"
                cell.show(pose[step], wanted[step], title)
        return style.save(fig, path)


@contextlib.contextmanager
def _robot(env_id: str):
    with contextlib.closing(make.make(env_id)) as env:
        yield robots.Robot(env.unwrapped.model), env.unwrapped.dt


class _Cell:
    """A panel of a grid with a robot over the pose that it should have."""

    def __init__(
        self,
        fig: figure.Figure,
        place: tuple[int, int],
        grid: tuple[int, int],
        robot: robots.Robot,
        shade: str,
    ):
        (row, column), (rows, columns) = place, grid
        left, bottom, width, height = _INSIDE
        box = (column + left) / columns, (rows - 1 - row + bottom) / rows
        inches = fig.get_size_inches() / (columns, rows)  # of a cell
        ratio = height * inches[1] / (width * inches[0])
        self._robot = robot
        self.axis = robots.panel(fig.add_axes((*box, width / columns, height / rows)), ratio)
        points = 72.0 * width * inches[0] / robots.VIEW
        self._ghost = robots.limbs(self.axis, robot, points, _GREY, _GREY)
        self._limbs = robots.limbs(self.axis, robot, points, shade, style.SKY, alpha=0.9)

    def show(self, pose: np.ndarray, wanted: np.ndarray, title: str) -> None:
        """Draw one step; the grey pose stands where the robot is."""
        beside = wanted.copy()
        beside[0] = pose[0]
        for limbs, qpos in ((self._limbs, pose), (self._ghost, beside)):
            limbs.set_segments(np.repeat(self._robot.axes(qpos), 2, axis=0))
        self.axis.set_xlim(pose[0] - robots.VIEW / 2, pose[0] + robots.VIEW / 2)
        self.axis.set_title(title, fontsize=9)
