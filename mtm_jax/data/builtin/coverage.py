"""How much of the walker's state space a data set covers, from observations alone.

Two measures: cells of a fixed grid over five coordinates that have a name, and the particle
entropy, the mean log distance to a near neighbour in all dimensions. Both grow with the number
of states: compare equal numbers.
"""

from __future__ import annotations

import numpy as np

from mtm_jax.errors import UserError

_OBS_DIM = 24
_HIP_EDGES = np.linspace(-0.35, 1.75, 7)[1:-1]  # rad; the ends are the joint's limits
# Coordinate -> the borders between its cells; the outer cells are open.
GRID = {
    "torso height": np.linspace(0.2, 1.4, 13),  # m
    "torso angle": np.linspace(-np.pi, np.pi, 13)[1:-1],  # rad, 0 = upright
    "horizontal velocity": np.linspace(-4.0, 8.0, 13),  # m/s
    "right hip": _HIP_EDGES,
    "left hip": _HIP_EDGES,
}
_HEIGHT, _VELOCITY = 14, 16
_TORSO, _RIGHT_THIGH, _LEFT_THIGH = 0, 2, 8  # where an orientation, (cos, sin), begins
_VELOCITY_SCALE = 10.0  # brings velocities to the size of the other dimensions


def coordinates(observations: np.ndarray) -> np.ndarray:
    """Compute the coordinates of GRID: [n, 24] -> [n, 5].

    Raises:
        UserError: the observations have another shape.
    """
    obs = np.asarray(observations)
    if obs.ndim != 2 or obs.shape[1] != _OBS_DIM or len(obs) == 0:
        raise UserError(
            f"observations have shape {obs.shape}, but coverage is measured of walker "
            f"observations, [n, {_OBS_DIM}]; give data of a walker task"
        )
    torso, right, left = (
        np.arctan2(obs[:, k + 1], obs[:, k]) for k in (_TORSO, _RIGHT_THIGH, _LEFT_THIGH)
    )
    # The hip turns the other way round than the torso.
    hips = (np.angle(np.exp(1j * (torso - thigh))) for thigh in (right, left))
    return np.stack([obs[:, _HEIGHT], torso, obs[:, _VELOCITY], *hips], axis=1)


def cells(observations: np.ndarray) -> np.ndarray:
    """Number the grid cell of each state: [n, 24] -> [n] int64.

    Raises:
        UserError: see `coordinates`.
    """
    columns = coordinates(observations).T
    places = [np.digitize(c, edges) for c, edges in zip(columns, GRID.values(), strict=True)]
    return np.ravel_multi_index(places, [len(edges) + 1 for edges in GRID.values()])


def occupied(observations: np.ndarray) -> int:
    """Count the grid cells that hold a state.

    Raises:
        UserError: see `coordinates`.
    """
    return len(np.unique(cells(observations)))


def particle_entropy(
    observations: np.ndarray, particles: int = 2000, neighbour: int = 12, seed: int = 0
) -> float:
    """Mean log distance to the nearest neighbours, up to a constant an estimate of the entropy.

    Args:
        observations: [n, 24].
        particles: at most this many states are drawn from them.
        neighbour: which neighbour counts, 1 = the nearest.
        seed: of the draw.

    Raises:
        UserError: the shape is wrong, or there are too few states.
    """
    coordinates(observations[:1])
    if len(observations) <= neighbour:
        raise UserError(
            f"{len(observations)} states have no neighbour number {neighbour}; give more states"
        )
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(observations))[:particles]
    points = np.array(observations[rows], np.float64)
    points[:, _HEIGHT + 1 :] /= _VELOCITY_SCALE
    norms = np.sum(points**2, axis=1)
    squares = norms[:, None] + norms - 2.0 * points @ points.T
    nearest = np.partition(squares, neighbour, axis=1)[:, neighbour]  # 0 is the point itself
    return float(0.5 * np.log(np.maximum(nearest, 1e-12)).mean())
