"""Compare the settings of a recorded environment with those of the one to evaluate in.

What is stored beside data is only ever compared with our own list; it chooses no code to run.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Mapping
from typing import Any

import gymnasium

from mtm_jax.data import custom
from mtm_jax.data.recorded import environment
from mtm_jax.envs import registry
from mtm_jax.errors import UserError
from mtm_jax.types import DataInfo

# Arguments of environments that only matter for pictures.
_DRAWING = {"render_mode", "render_fps", "width", "height", "camera_id", "camera_name"}
_DRAWING |= {"default_camera_config", "max_geom", "visual_options"}
_CLIP = "ClipAction"
# Wrappers that leave flat observations, rewards, endings and the meaning of actions alone.
_HARMLESS = {"OrderEnforcing", "PassiveEnvChecker", "RecordEpisodeStatistics", "RecordVideo"}
_HARMLESS |= {"HumanRendering", "RenderCollection", "Monitor", "DataCollector", "TimeLimit"}
_HARMLESS |= {"FlattenObservation", "DtypeObservation", _CLIP, "SetInitialState"}
RESCALE = "RescaleAction"  # its actions can be mapped back
_PACKAGES = {"gymnasium", "gymnasium_robotics", "gym", "mtm_jax"}  # that make our environments


def agree(what: str, stored: Mapping[str, Any], info: DataInfo, notes: list[str]) -> DataInfo:
    """Refuse data that were recorded under other settings than those of the id in `info`.

    Args:
        what: the data, for messages.
        stored: what is said of the recorded environment, as gymnasium's EnvSpec says it: id,
            entry_point, kwargs, additional_wrappers, max_episode_steps.
        info: how the data are to be evaluated.
        notes: gets a sentence where the time limit differs.

    Returns:
        The info, with the time limit of the recording.

    Raises:
        UserError: arguments, wrappers or the code behind the id differ, or cannot be read.
    """
    spec = registry.spec_of_id(info.env_id)
    recorded = str(stored.get("id", info.env_id))
    if (
        recorded in (*spec.env_ids, *spec.recorded_ids)
        or environment.other_version(spec, recorded) is not None
    ):
        differences = [
            *_arguments(what, stored, spec, info.env_id),
            *_wrappers(what, stored, info.env_id),
            *_code(stored, info.env_id),
        ]
        if differences:
            raise UserError(
                f"{what} was recorded in {recorded} with {', '.join(differences)}; "
                f"{environment.ELSEWHERE}"
            )
    return _with_limit(what, stored, spec, info, notes)


def _arguments(what: str, stored: Mapping, spec: registry.EnvSpec, env_id: str) -> list[str]:
    """Name the arguments that differ, with both values."""
    given = stored.get("kwargs") or {}
    if not isinstance(given, Mapping):
        raise UserError(f"{what}: its env_spec has kwargs {given!r}; expected names and values")
    if "Sparse" in str(stored.get("id")):
        given = {"reward_type": "sparse"} | dict(given)
    given = {key: value for key, value in given.items() if key not in _DRAWING}
    if spec.suite == "adroit" and not spec.name.endswith("_dense"):
        given.pop("reward_type", None)  # the papers' rewards are told from the observations
    if not given:
        return []
    ours = _defaults(spec, env_id)
    return [
        f"{key}={value!r} where {env_id} has {ours.get(key, 'none')!r}"
        for key, value in given.items()
        if key not in ours or not _same(value, ours[key])
    ]


@functools.cache
def _defaults(spec: registry.EnvSpec, env_id: str) -> dict[str, Any]:
    """The arguments that an id of ours is made with."""
    if spec.suite == "adroit":
        return {"reward_type": "dense", "hand_id": f"AdroitHand{spec.name.title()}Sparse-v1"}
    if spec.suite == "walker":
        return {"task": spec.name.removeprefix("walker_")}
    made = gymnasium.spec(env_id)
    try:
        creator = gymnasium.envs.registration.load_env_creator(made.entry_point)
    except (ImportError, AttributeError, RuntimeError):  # a simulator that is not to be imported
        return dict(made.kwargs)
    parameters = inspect.signature(creator).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty} | made.kwargs


def _same(one: object, other: object) -> bool:
    """Whether a value of JSON is ours; JSON has lists only."""
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) in (type(other), int, float) and one == other


def _wrappers(what: str, stored: Mapping, env_id: str) -> list[str]:
    names = wrapper_names(what, stored)
    return [
        f"the wrapper {name} where {env_id} has none"
        for name in names
        if name not in _HARMLESS | {RESCALE}
    ]


def wrapper_names(what: str, stored: Mapping[str, Any]) -> list[str]:
    """Name the wrappers of a recorded environment, the innermost first.

    Raises:
        UserError: they cannot be read.
    """
    wrappers = stored.get("additional_wrappers") or []
    if not isinstance(wrappers, list) or not all(isinstance(w, Mapping) for w in wrappers):
        raise UserError(f"{what}: the additional_wrappers of its env_spec cannot be read")
    return [str(wrapper.get("name")) for wrapper in wrappers]


def clips(what: str, stored: Mapping[str, Any]) -> bool:
    """Whether the recorded environment clipped actions itself, so that doing it is exact."""
    return _CLIP in wrapper_names(what, stored)


def _code(stored: Mapping, env_id: str) -> list[str]:
    """Name other code behind the id than that of the libraries that have it."""
    entry = stored.get("entry_point")
    known = not isinstance(entry, str) or entry.split(":")[0].split(".")[0] in _PACKAGES
    return [] if known else [f"the code {entry!r} where {env_id} is gymnasium's"]


def _with_limit(
    what: str, stored: Mapping, spec: registry.EnvSpec, info: DataInfo, notes: list[str]
) -> DataInfo:
    """Take over the time limit of the recording."""
    if "max_episode_steps" not in stored:
        return info
    if stored["max_episode_steps"] in (None, -1):
        notes.append(
            "recorded without a time limit; it is evaluated under the "
            f"{info.max_episode_steps} steps of {info.env_id}"
        )
        return info
    limit = custom.whole_steps(what, "max_episode_steps", stored["max_episode_steps"])
    # Demonstrations of the hand run longer than the papers' episodes, whose limit stays.
    if limit == info.max_episode_steps or (
        spec.suite == "adroit" and limit > spec.max_episode_steps
    ):
        return info
    notes.append(
        f"recorded under a time limit of {limit} steps where {info.env_id} has "
        f"{info.max_episode_steps}; the {limit} are taken over, for evaluation too, so scores do "
        "not compare with published ones"
    )
    return dataclasses.replace(info, max_episode_steps=limit)
