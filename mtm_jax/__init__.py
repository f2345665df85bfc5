"""Masked trajectory models in JAX: one bidirectional transformer, many roles by its mask.

    import mtm_jax
    policy = mtm_jax.load("runs/pretrain/hopper-medium-m3pc-small-seed0").policy()
    action = policy.act(obs)

Names are imported on first use, so that `import mtm_jax` stays light.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mtm_jax.agents.acting import make_actor
    from mtm_jax.agents.agent import Agent, load
    from mtm_jax.agents.encoding import encode
    from mtm_jax.agents.finetuner import Finetuner
    from mtm_jax.agents.finetuner import pad as make_episode
    from mtm_jax.agents.fitting import train
    from mtm_jax.agents.inpainting import inpaint
    from mtm_jax.agents.model_files import load_model
    from mtm_jax.agents.policy import Policy
    from mtm_jax.agents.torch_import import from_torch_state_dict
    from mtm_jax.config import (
        CriticConfig,
        FinetuneConfig,
        GoalConfig,
        LossConfig,
        MaskConfig,
        ModelConfig,
        OptimConfig,
        PlanConfig,
        PretrainConfig,
        PromptConfig,
        TD3Config,
    )
    from mtm_jax.data.goal_files import load as load_goals
    from mtm_jax.data.own import from_arrays as trajectories_from_arrays
    from mtm_jax.data.selection import keep_modality
    from mtm_jax.data.sources import load as load_data
    from mtm_jax.envs.goals.waypoints import Goals
    from mtm_jax.envs.goals.waypoints import make as make_goals
    from mtm_jax.errors import UserError
    from mtm_jax.models.trajectory_model import Model, make_model
    from mtm_jax.training.dataset import (
        Dataset,
        make_dataset,
        sample_transitions,
        sample_windows,
    )
    from mtm_jax.types import DataInfo, ModalitySpec, Trajectories

_HOME = {
    "Agent": "agents.agent",
    "Policy": "agents.policy",
    "load": "agents.agent",
    "encode": "agents.encoding",
    "inpaint": "agents.inpainting",
    "train": "agents.fitting",
    "make_actor": "agents.acting",
    "Finetuner": "agents.finetuner",
    "make_episode": "agents.finetuner:pad",
    "CriticConfig": "config",
    "FinetuneConfig": "config",
    "GoalConfig": "config",
    "LossConfig": "config",
    "MaskConfig": "config",
    "ModelConfig": "config",
    "OptimConfig": "config",
    "PlanConfig": "config",
    "PretrainConfig": "config",
    "PromptConfig": "config",
    "TD3Config": "config",
    "load_data": "data.sources:load",
    "load_goals": "data.goal_files:load",
    "Goals": "envs.goals.waypoints",
    "make_goals": "envs.goals.waypoints:make",
    "load_model": "agents.model_files",
    "Dataset": "training.dataset",
    "keep_modality": "data.selection",
    "make_dataset": "training.dataset",
    "sample_transitions": "training.dataset",
    "sample_windows": "training.dataset",
    "UserError": "errors",
    "Model": "models.trajectory_model",
    "make_model": "models.trajectory_model",
    "from_torch_state_dict": "agents.torch_import",
    "DataInfo": "types",
    "ModalitySpec": "types",
    "Trajectories": "types",
    "trajectories_from_arrays": "data.own:from_arrays",
}

__version__ = "0.1.0"
__all__ = [
    "Agent",
    "CriticConfig",
    "DataInfo",
    "Dataset",
    "FinetuneConfig",
    "Finetuner",
    "GoalConfig",
    "Goals",
    "LossConfig",
    "MaskConfig",
    "ModalitySpec",
    "Model",
    "ModelConfig",
    "OptimConfig",
    "PlanConfig",
    "Policy",
    "PretrainConfig",
    "PromptConfig",
    "TD3Config",
    "Trajectories",
    "UserError",
    "encode",
    "from_torch_state_dict",
    "inpaint",
    "keep_modality",
    "load",
    "load_data",
    "load_goals",
    "load_model",
    "make_actor",
    "make_dataset",
    "make_episode",
    "make_goals",
    "make_model",
    "sample_transitions",
    "sample_windows",
    "train",
    "trajectories_from_arrays",
]


def __getattr__(name: str) -> object:
    if name in _HOME:
        module, _, attribute = _HOME[name].partition(":")
        return getattr(importlib.import_module(f"mtm_jax.{module}"), attribute or name)
    if importlib.util.find_spec(f"mtm_jax.{name}"):
        return importlib.import_module(f"mtm_jax.{name}")
    raise AttributeError(f"module 'mtm_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
