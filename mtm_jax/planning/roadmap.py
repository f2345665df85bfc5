"""Far goals: a shortest path over states of the data supplies the subgoals.

Nodes are recorded states, `stride` steps apart. A recorded episode leads from a node to the next
one, in `stride` steps; and whoever is at a node may go on as from another one that is near, at the
cost of their distance. The model that follows the path stays as it is (the idea of test-time graph
search, TTGS).
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy import sparse
from scipy.sparse import csgraph

from mtm_jax.errors import UserError

_BLOCK = 2048  # rows of a matrix of distances at a time
_LEAST = 1e-6  # a weight of zero would be no edge


class Roadmap(NamedTuple):
    """Where to head for from every node, and how far the goal is."""

    states: Array  # [n, S] raw
    following: Array  # [n, S] raw, the recorded state `stride` steps later; at a goal, the state
    costs: Array  # [n], steps to a goal by way of `following`; what leads to none is left out
    stride: Array  # [] int
    penalty: Array  # [], steps that a distance of one costs
    scale: Array  # [S], of distances


def build(
    states: np.ndarray,
    last: np.ndarray,
    goal: np.ndarray,
    scale: np.ndarray,
    stride: int = 3,
    neighbours: int = 8,
    penalty: float = 20.0,
) -> Roadmap:
    """Compute the shortest paths to a set of goals.

    Args:
        states: [n, S] raw, every `stride`-th state of recorded episodes, one after another.
        last: [n] bool, the last one of its episode.
        goal: [n] bool, states to end in.
        scale: [S], standard deviations; the distance of two states is the root mean square over
            dimensions.
        stride: steps from one state to the next.
        neighbours: states that one may go on from, for every state.
        penalty: steps that a distance of one costs.

    Raises:
        UserError: no state is a goal.
    """
    if not goal.any():
        raise UserError("none of these states is a goal; ask for one that the data come nearer to")
    graph = _graph(states / scale, last, stride, neighbours, penalty)
    costs = csgraph.dijkstra(graph.T, indices=np.flatnonzero(goal), min_only=True)
    onwards = np.where(last, np.inf, stride + np.roll(costs, -1))  # along the own episode
    costs = np.where(goal, 0.0, onwards)
    useful = np.isfinite(costs)
    following = np.where(goal[:, None], states, np.roll(states, -1, axis=0))
    return Roadmap(
        states=jnp.asarray(states[useful]),
        following=jnp.asarray(following[useful]),
        costs=jnp.asarray(costs[useful], jnp.float32),
        stride=jnp.asarray(stride, jnp.int32),
        penalty=jnp.asarray(penalty, jnp.float32),
        scale=jnp.asarray(scale),
    )


def head_for(roadmap: Roadmap, state: Array) -> Array:
    """Choose the subgoal of a state, [S], to be reached in `roadmap.stride` steps: [S]."""
    off = (roadmap.states - state) / roadmap.scale
    far = jnp.sqrt((off**2).mean(-1))
    return roadmap.following[jnp.argmin(roadmap.penalty * far + roadmap.costs)]


def _graph(
    points: np.ndarray, last: np.ndarray, stride: int, neighbours: int, penalty: float
) -> sparse.csr_array:
    """Join every node with the next one of its episode, and with its nearest others."""
    count = len(points)
    before = np.flatnonzero(~last)
    near, far = _nearest(points, min(neighbours, count - 1))
    rows = np.concatenate([before, np.repeat(np.arange(count), near.shape[1])])
    columns = np.concatenate([before + 1, near.ravel()])
    weights = np.concatenate([np.full(len(before), float(stride)), penalty * far.ravel()])
    # Two ways between the same nodes would be added up: the nearest of others includes the next.
    order = np.lexsort((weights, columns, rows))
    rows, columns, weights = rows[order], columns[order], np.maximum(weights[order], _LEAST)
    first = np.ones(len(rows), bool)
    first[1:] = (np.diff(rows) != 0) | (np.diff(columns) != 0)
    return sparse.csr_array((weights[first], (rows[first], columns[first])), (count, count))


def _nearest(points: np.ndarray, neighbours: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest other points and their distances, [n, neighbours] each."""
    squares, found = (points**2).sum(1), []
    for start in range(0, len(points), _BLOCK):
        block = slice(start, start + _BLOCK)
        square = squares[block, None] + squares - 2.0 * points[block] @ points.T
        own = np.arange(len(square))
        square[own, start + own] = np.inf
        near = np.argpartition(square, max(neighbours - 1, 0), axis=1)[:, :neighbours]
        far = np.take_along_axis(square, near, axis=1).clip(0.0) / points.shape[1]
        found.append((near, np.sqrt(far)))
    return tuple(np.concatenate(x) for x in zip(*found, strict=True))
