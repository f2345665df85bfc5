"""Environments: the allowed ids with their reference scores, and vectorised rollouts."""
