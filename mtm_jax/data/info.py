"""Describe a data set: by the environment that its name starts with, or by itself."""

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


def spec_of(info: DataInfo) -> registry.EnvSpec | None:
    """Return the environment of the data; None where it is not in the registry."""
    if info.env_id:
        return next((s for s in registry.ENVS.values() if info.env_id in s.env_ids), None)
    return find_env(info.name)


def time_limit(info: DataInfo) -> int:
    """Return the steps to evaluate for: those of the data, unless demonstrations run longer."""
    spec = registry.spec_of_id(info.env_id)
    demonstrated = spec.suite == "adroit"
    return (
        min(info.max_episode_steps, spec.max_episode_steps)
        if demonstrated
        else info.max_episode_steps
    )


def find_env(text: str) -> registry.EnvSpec | None:
    """Find the environment that `text` starts with: "hopper-medium", "hopper_x-v2", "Hopper-v4"."""
    for name in sorted(registry.BASES, key=len, reverse=True):  # pen_dense before pen
        if re.match(rf"{re.escape(name)}(?![a-z0-9])", text.lower()):
            return registry.BASES[name]
    return None


def asked_id(name: str, given: bool = True) -> str | None:
    """Find the id that data called `name` are to be evaluated in; None where it asks for none.

    Args:
        name: such as "Hopper-v4-mine".
        given: whether the user gave the name; the name of a file asks for a version only where it
            is spelled as gymnasium spells its ids ("Hopper-v4.hdf5"; "hopper-v2.hdf5" may be the
            second version of the data).

    Raises:
        UserError: the version is not in the registry.
    """
    return registry.asked_id(name) if given or name[:1].isupper() else None


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


def name_in(spec: registry.EnvSpec, name: str) -> str:
    """Return the name, which starts with its environment as other parts of the package expect."""
    return name if find_env(name) is spec else f"{spec.name}-{name}"
