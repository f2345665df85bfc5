"""What TD3 sees: raw states, or what the encoder of a pretraining run makes of them."""

from __future__ import annotations

from ml_collections import config_dict

from experiments.training import build
from mtm_jax.agents import encoding, pretrained
from mtm_jax.envs import registry
from mtm_jax.errors import UserError
from mtm_jax.training import td3
from mtm_jax.types import DataInfo


def check(config: config_dict.ConfigDict) -> None:
    """Refuse settings of features that mean nothing.

    Raises:
        UserError: the kind is unknown, or an encoder is asked for and no run is named.
    """
    if config.kind not in encoding.KINDS:
        raise UserError(
            f"features.kind is {config.kind!r}; choose one of {', '.join(encoding.KINDS)}"
        )
    if not config.run and (config.finetuned or config.kind != "states"):
        raise UserError(
            f"features.kind is {config.kind} and features.finetuned is {config.finetuned}, but no "
            "model was named; give --config.features.run=FOLDER"
        )


def make(config: config_dict.ConfigDict, data: build.Data) -> td3.Features:
    """Build what a configuration names.

    Raises:
        UserError: there is no such run, or its model is of another robot.
    """
    if not config.run:
        return td3.raw_features(data.stats["states"])
    agent = pretrained.load(config.run)
    check_robot(agent, data)
    return encoding.td3_features(agent, config.kind, config.finetuned)


def check_robot(agent: pretrained.Pretrained, data: build.Data) -> None:
    """Refuse a model of another robot; the tasks of one robot may differ.

    Raises:
        UserError: it names both.
    """
    here, there = (
        tuple(len(stats[name].mean) for name in ("states", "actions"))
        for stats in (data.stats, agent.stats)
    )
    if here != there or robot(data.info) != robot(agent.info):
        raise UserError(
            f"the model in {agent.run} is of {agent.info.name}, with {there[0]} states and "
            f"{there[1]} actions, and {data.info.name} has {here[0]} and {here[1]}: its encoder "
            f"cannot read them; pretrain a model on data of {robot(data.info)}"
        )


def robot(info: DataInfo) -> str:
    """Name what data are of: tasks that share states and dynamics have one robot."""
    if not info.env_id:
        return info.name
    spec = registry.spec_of_id(info.env_id)
    return spec.suite if spec.suite == "walker" else spec.name


def describe(config: config_dict.ConfigDict) -> str:
    """Name the features in one word or two, such as "pairs, finetuned"."""
    if not config.run:
        return "raw"
    return f"{config.kind}, {'finetuned' if config.finetuned else 'frozen'}"
