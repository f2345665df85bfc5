"""Environments: the allowed ids with their reference scores, and vectorised rollouts."""

from mtm_jax.envs import renderer

renderer.disable_missing()  # before a module of this package, or gymnasium, imports mujoco
