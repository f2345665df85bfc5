"""The kinematics of the planar robots: from poses to observations, by MuJoCo, and back."""

from __future__ import annotations

import mujoco
import numpy as np

from mtm_jax.envs import make, registry
from mtm_jax.errors import UserError

ROBOTS = ("hopper", "walker2d", "halfcheetah")  # their observations are qpos[1:] and qvel
_CLIPPED = ("hopper", "walker2d")  # whose observations have velocities of at most _LIMIT
_LIMIT = 10.0
X, Z, PITCH = 0, 1, 2  # of the trunk, in qpos: metres, metres and radians


class Robot:
    """One robot; poses are qpos [n, nq] as its simulator has them."""

    def __init__(self, env_id: str):
        """Load the model of an environment.

        Raises:
            UserError: it is not one of ROBOTS.
        """
        self.name = registry.spec_of_id(env_id).name
        if self.name not in ROBOTS:
            raise UserError(
                f"motions of {self.name} cannot be made, only those of {', '.join(ROBOTS)}, whose "
                "observations tell the simulator's state; give an array of goals"
            )
        self._env = make.make(env_id).unwrapped
        self._model, self._data = self._env.model, self._env.data
        self._capsules = np.flatnonzero(self._model.geom_type == mujoco.mjtGeom.mjGEOM_CAPSULE)
        self.dt = float(self._env.dt)  # seconds of a step

    @property
    def rest(self) -> np.ndarray:
        """The pose around which episodes start, [nq]."""
        return self._env.init_qpos.copy()

    def joint(self, name: str) -> int:
        """Find the place of a joint in qpos."""
        return int(self._model.joint(name).qposadr[0])

    def observe(self, qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
        """Compute the observations of states: [n, nq], [n, nv] -> [n, S] float32."""
        return np.stack([self._observation(*state) for state in zip(qpos, qvel, strict=True)])

    def _observation(self, qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
        self._data.qpos[:], self._data.qvel[:] = qpos, qvel
        return np.float32(self._env._get_obs())

    def moving(self, qpos: np.ndarray) -> np.ndarray:
        """Compute the observations of poses that follow one another, a step apart: -> [n, S].

        Velocities are central differences.
        """
        return self.observe(qpos, np.gradient(qpos, self.dt, axis=0))

    def lowest(self, qpos: np.ndarray) -> np.ndarray:
        """Compute the height of the lowest point of each pose, [n] metres."""
        return np.array([self._lowest(pose) for pose in qpos])

    def _lowest(self, pose: np.ndarray) -> float:
        self._kinematics(pose)
        centres = self._data.geom_xpos[self._capsules, 2]
        upwards = self._data.geom_xmat[self._capsules].reshape(-1, 3, 3)[:, 2, 2]
        radius, half = self._model.geom_size[self._capsules, :2].T
        return float((centres - half * np.abs(upwards) - radius).min())

    def grounded(self, qpos: np.ndarray) -> np.ndarray:
        """Raise or lower each pose until it is as high above the ground as the pose of rest."""
        placed = qpos.copy()
        placed[:, Z] -= self.lowest(qpos) - self._lowest(self.rest)
        return placed

    def anchored(self, qpos: np.ndarray, body: str) -> np.ndarray:
        """Move each pose until a body is where it is in the first one."""
        places = np.array([self._place(pose, body) for pose in qpos])
        placed = qpos.copy()
        placed[:, [X, Z]] -= places - places[0]
        return placed

    def _place(self, pose: np.ndarray, body: str) -> np.ndarray:
        self._kinematics(pose)
        return self._data.body(body).xpos[[0, 2]].copy()

    def _kinematics(self, pose: np.ndarray) -> None:
        self._data.qpos[:] = pose
        mujoco.mj_kinematics(self._model, self._data)


def exact(observations: np.ndarray, env_id: str) -> np.ndarray:
    """Say which observations tell the state, except for the way: [..., S] -> [...] bool."""
    _, qvel = split(observations, env_id)
    clips = registry.spec_of_id(env_id).name in _CLIPPED
    return (np.abs(qvel) < (_LIMIT if clips else np.inf)).all(-1)


def split(observations: np.ndarray, env_id: str) -> tuple[np.ndarray, np.ndarray]:
    """Read positions and velocities from observations of a robot: [..., S] -> [..., nq], [..., nv].

    Observations leave out the way, which is set to zero; for velocities see `exact`.
    """
    spec = registry.spec_of_id(env_id)
    positions = (spec.obs_dim - 1) // 2
    x = np.zeros((*observations.shape[:-1], 1))
    qpos = np.concatenate([x, observations[..., :positions]], axis=-1)
    return qpos.astype(np.float64), observations[..., positions:].astype(np.float64)
