"""From a configuration to the frozen settings and values that the library takes."""

from __future__ import annotations

import math
import pathlib
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import config_dict

from mtm_jax.agents import pretrained
from mtm_jax.config import LossConfig, MaskConfig, ModelConfig, OptimConfig, PretrainConfig
from mtm_jax.data import inspection, selection, sources
from mtm_jax.errors import UserError
from mtm_jax.training import dataset
from mtm_jax.types import DataInfo, ModalitySpec, Trajectories


class Data(NamedTuple):
    """Both splits on the device, with what is said about them."""

    train: dataset.Dataset
    valid: dataset.Dataset
    stats: dict
    info: DataInfo
    returns: pretrained.ReturnSummary
    episodes: int


def load_data(config: config_dict.ConfigDict) -> Data:
    """Load, split and index the data set that a configuration names."""
    sized = config.source == "builtin" or sources.is_exorl(config.source)  # others: read whole
    steps = config.data.steps if sized else None
    options = {"steps": steps, "clip_actions": config.data.get("clip_actions", False)}
    # Not kept in a variable here: `split` lets go of the whole before it fills the device.
    return split(sources.load(config.env, config.source, **options), config)


def split(trajectories: Trajectories, config: config_dict.ConfigDict) -> Data:
    """Split by episode and put both parts on the device."""
    window, info, episodes = config.model.window, trajectories.info, len(trajectories.lengths)
    train, valid = selection.split_episodes(
        trajectories, config.data.train_fraction, config.data.split_seed, window
    )
    del trajectories
    seed = config.data.split_seed
    if config.data.episodes_fraction < 1:
        train = selection.keep_episodes(train, config.data.episodes_fraction, seed)
    if config.data.actions_fraction < 1:
        train = selection.keep_modality(train, "actions", config.data.actions_fraction, seed)
    repeats = selection.repeats(train, "actions", config.data.labelled_share)
    returns = inspection.returns(train)
    known = len(returns) > 0 and config.data.get("rewards", True)
    train_set = dataset.make_dataset(train, window, repeats)
    return Data(
        train=train_set,
        valid=dataset.make_dataset(valid, min(window, int(valid.lengths.max()))),
        stats=dataset.compute_stats(train_set),
        info=info,
        returns=pretrained.ReturnSummary(
            best=float(returns.max()) if known else None,
            mean=float(returns.mean()) if known else None,
        ),
        episodes=episodes,
    )


def pretrain_config(config: config_dict.ConfigDict, data: Data) -> PretrainConfig:
    """Collect the settings of a pretraining program for this data set's dimensions."""
    loss = dict(config.loss)
    optim = dict(config.optim)
    optim["warmup_steps"] = int(optim.pop("warmup_fraction") * config.steps)
    wrong = [name for name, w in config.masks.patterns.items() if not 0 <= w < math.inf]
    if wrong:
        raise UserError(
            f"masks.patterns.{wrong[0]} is {config.masks.patterns[wrong[0]]}; weights must be "
            "finite and not negative"
        )
    patterns = tuple((name, w) for name, w in config.masks.patterns.items() if w > 0)
    model = model_config(config, data)
    return PretrainConfig(
        model=model,
        masks=MaskConfig(
            patterns=patterns,
            fractions=tuple(config.masks.fractions),
            modality_weights=tuple(config.masks.modality_weights.items()),
        ),
        loss=LossConfig(**loss),
        optim=OptimConfig(total_steps=config.steps, **optim),
        batch_size=config.batch_size,
        micro_batches=config.micro_batches,
        state_noise=config.data.state_noise,
        prng=config.prng,
    )


def model_config(config: config_dict.ConfigDict, data: Data) -> ModelConfig:
    """Describe the model: its modalities have the data set's dimensions."""
    settings = dict(config.model)
    bins = settings.pop("bins")
    if bins < 0:
        raise UserError(f"model.bins is {bins}; give a number of bins, or 0 for continuous tokens")
    if settings["compute_dtype"] == "auto":
        settings["compute_dtype"] = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    obs_dim, action_dim = (data.train.values[m].shape[-1] for m in ("states", "actions"))
    dims = {"states": obs_dim, "returns": 1, "actions": action_dim, "rewards": 1}
    if config.variant == "mtm":
        dims.pop("rewards")
    if not config.data.rewards:
        dims = {name: dims[name] for name in ("states", "actions")}
    if bins and config.variant != "mtm":
        raise UserError(
            f"model.bins is {bins} with variant {config.variant!r}; discrete tokens need "
            "variant=mtm, because a TanhNormal predicts continuous actions"
        )
    specs = tuple(_spec(name, dim, bins, config.variant) for name, dim in dims.items())
    return ModelConfig(modalities=specs, **settings)


def _spec(name: str, dim: int, bins: int, variant: str) -> ModalitySpec:
    if bins:
        return ModalitySpec(name, features=bins, tokens_per_step=dim, head="categorical")
    head = "tanh_normal" if name == "actions" and variant == "m3pc" else "continuous"
    return ModalitySpec(name, features=dim, head=head)


def default_out(config: config_dict.ConfigDict) -> pathlib.Path:
    """Name the run folder of a pretraining run after what is run."""
    known = ("builtin", "d4rl", "minari")
    source = config.source if config.source in known else pathlib.Path(config.source).stem
    source = "".join(c if c.isalnum() or c in "-_" else "-" for c in source)
    parts = [config.env, *([] if source == "builtin" else [source])]
    role = config.get("role", "unified")  # most programs that name a run do not know it
    parts += [config.variant, *([] if role == "unified" else [role])]
    parts += [config.preset, f"seed{config.seed}"]
    return pathlib.Path("runs") / "pretrain" / "-".join(parts)


def summary(data: Data) -> str:
    """Say in one line what the data set is."""
    steps = int(np.sum([len(part.terminals) for part in (data.train, data.valid)]))
    returns = "no returns"
    if data.returns.best is not None:
        returns = f"mean return {data.returns.mean:.1f}, best {data.returns.best:.1f}"
    return (
        f"{data.info.name} ({data.info.source}): {data.episodes} episodes, {steps} steps, "
        f"{returns} (training part)"
    )
