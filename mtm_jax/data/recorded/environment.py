"""From the id that data were recorded in to the one of ours that they are evaluated in."""

from __future__ import annotations

from collections.abc import Callable

from mtm_jax.data import info as data_info
from mtm_jax.envs import registry
from mtm_jax.errors import UserError

ELSEWHERE = "to learn from it without evaluation, give it a name that starts with custom"


def choose_env(
    what: str,
    stored: str,
    name: str | None,
    default: Callable[[registry.EnvSpec], str],
    notes: list[str],
    given: bool = True,
) -> tuple[registry.EnvSpec, str]:
    """Choose the environment to evaluate data in that were recorded in the id `stored`.

    Args:
        what: the data, for messages.
        stored: the recorded id.
        name: what the user calls the data, which may start with an environment or an id.
        default: environment -> the id where neither tells.
        notes: gets a sentence where the id is another one than the recorded one.
        given: see `info.asked_id`.

    Returns:
        The environment, and the id: the recorded one, if it is ours.

    Raises:
        UserError: it is not on our list, or not what `name` says.
    """
    named = data_info.find_env(name or "")
    asked = data_info.asked_id(name or "", given)
    specs = list(registry.specs_recorded_in(stored))
    specs = specs or [s for s in registry.ENVS.values() if other_version(s, stored) is not None]
    if not specs:
        return _of_name(what, stored, named, asked, default, notes)
    if named not in (None, *specs):
        raise UserError(
            f"{what} was recorded in {stored}, which is not the {named.name} of {name!r}; name "
            f"{specs[0].name} instead"
        )
    spec = named or specs[0]
    env_id = _equal_id(what, stored, spec, notes) or asked or default(spec)
    if asked not in (None, env_id):
        raise UserError(
            f"{what} was recorded in {stored}, and {name!r} asks for {asked}; name {env_id} "
            f"instead, or {ELSEWHERE}"
        )
    return spec, env_id


def _of_name(
    what: str,
    stored: str,
    named: registry.EnvSpec | None,
    asked: str | None,
    default: Callable[[registry.EnvSpec], str],
    notes: list[str],
) -> tuple[registry.EnvSpec, str]:
    """Take the user's word for what nobody here knows; validation compares the dimensions."""
    if named is None:
        known = dict.fromkeys(
            i for s in registry.ENVS.values() for i in (*s.env_ids, *s.recorded_ids)
        )
        raise UserError(
            f"{what}: environment id {stored!r} is not allowed; data of these are read: "
            f"{', '.join(known)}; if it is like one of ours, name the data after it, like "
            "hopper-medium"
        )
    env_id = asked or default(named)
    notes.append(
        f"recorded in {stored}, which is not known here; it is taken for {env_id or named.name}, "
        "as its name says"
    )
    return named, env_id


def is_id(text: str) -> bool:
    """Whether a text is an id that is read here, in whatever version."""
    return any(
        text in (*spec.recorded_ids, *spec.env_ids) or other_version(spec, text) is not None
        for spec in registry.ENVS.values()
    )


def other_version(spec: registry.EnvSpec, stored: str) -> int | None:
    """Return the version of an id that is one of this environment's but for its version."""
    base, _, version = stored.rpartition("-v")
    bases = {env_id.rpartition("-v")[0] for env_id in spec.env_ids}
    return int(version) if base in bases and version.isdecimal() and len(version) < 9 else None


def _equal_id(what: str, stored: str, spec: registry.EnvSpec, notes: list[str]) -> str | None:
    """The id of ours that has the recorded one's rewards and dynamics; None where any may do."""
    if stored in spec.env_ids:
        return stored
    version = other_version(spec, stored)
    if stored in spec.recorded_ids or version is None:
        return None
    if version > int(spec.d4rl_id.rpartition("-v")[2]):
        raise UserError(
            f"{what} was recorded in {stored}, and only {' and '.join(spec.env_ids)} are here; "
            f"{ELSEWHERE}"
        )
    notes.append(
        f"recorded in {stored}; it is evaluated in {spec.d4rl_id}, which kept its rewards and "
        "dynamics"
    )
    return spec.d4rl_id
