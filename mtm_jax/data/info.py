"""From a name or a stored id to the environment that a data set belongs to."""

from __future__ import annotations

import re

from mtm_jax.envs import registry
from mtm_jax.errors import UserError
from mtm_jax.types import DataInfo


def of_env(spec: registry.EnvSpec, env_id: str, name: str, source: str) -> DataInfo:
    """Describe data called `name` from `source`, to be evaluated in `env_id` ("": not at all)."""
    return DataInfo(
        name=name,
        source=source,
        env_id=env_id,
        max_episode_steps=spec.max_episode_steps,
        action_low=(spec.action_low,) * spec.action_dim,
        action_high=(spec.action_high,) * spec.action_dim,
    )


def find_env(text: str) -> registry.EnvSpec | None:
    """Find the environment that `text` starts with, as "hopper-medium" and "hopper_x-v2" do."""
    for name in sorted(registry.ENVS, key=len, reverse=True):  # pen_dense before pen
        if re.match(rf"{re.escape(name)}(?![a-z0-9])", text.lower()):
            return registry.ENVS[name]
    return None


def env_of(what: str, *texts: str) -> registry.EnvSpec:
    """Find the environment that the first telling one of `texts` starts with.

    Args:
        what: the thing whose environment is wanted, for the error.
        texts: names to look at, the most trusted first.

    Raises:
        UserError: none of them starts with a known environment.
    """
    found = [spec for spec in map(find_env, texts) if spec is not None]
    if not found:
        raise UserError(
            f"the environment of {what} cannot be told from {' or '.join(map(repr, texts))}; "
            f"give a name that starts with one of {', '.join(registry.ENVS)}, like hopper-medium"
        )
    return found[0]
