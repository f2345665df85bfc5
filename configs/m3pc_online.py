"""Finetune a pretrained model and its critic online, exploring with the model's own plans.

Offline to online M3PC (Wen et al., ICLR 2025, section 5.3 and table 4). A pretraining run and its
critic are made first where they are missing.

python -m experiments.m3pc_online --config=configs/m3pc_online.py:hopper-medium
python -m experiments.m3pc_online --config.run=runs/pretrain/hopper-medium-m3pc-small-seed0
python -m experiments.m3pc_online --config=configs/m3pc_online.py:hopper-medium,explore=sample
"""

from ml_collections import config_dict

from configs import common

unset = config_dict.placeholder
NAME_KEYS = common.RUN_NAME_KEYS


def get_config(name=""):
    config = config_dict.ConfigDict()
    text, explore = _split(name)
    common.name_run(config, text)
    config.make_critic = True  # make the pretraining run and its critic where they are missing
    config.out = ""  # run folder; empty: runs/online and the names of the run and its exploration

    # Exploration
    config.explore = EXPLORE[explore]  # method whose draws explore: m3pc_q, m3pc_m, rcbc or bc
    config.steps = unset(int)  # environment steps of the whole run; unset: by preset
    config.environments = 1  # environments that are stepped together
    config.learning_after = 0  # environment steps before the first update

    # Learning
    config.updates = UPDATES[explore]["updates"]  # of the model, for 1000 environment steps
    config.critic_updates = UPDATES[explore]["critic_updates"]  # of the critic, for one of those
    config.chunk = 10  # updates of the model in one compiled call
    config.batch_size = unset(int)  # windows of an update; unset: by preset
    config.learning_rate = unset(float)  # of the model, constant; unset: by preset
    config.average = 0.999  # decay rate of the running average of the parameters, which acts
    config.online_after = 5_000  # online transitions from which on they are half of a batch
    config.buffer = config_dict.ConfigDict()
    config.buffer.episodes = unset(int)  # episodes that the model learns from; unset: by preset
    config.buffer.steps = unset(int)  # online transitions for the critic; unset: by preset

    # Evaluation and planning, also of what explores
    common.add_planning(config)
    config.plan.candidates = unset(int)  # action sequences to choose among; unset: by preset
    config.eval.methods = ("rcbc", "m3pc_q")  # methods to evaluate
    config.eval.episodes = 10  # episodes of each method
    config.eval.every = unset(int)  # environment steps between evaluations; unset: by preset

    # Checkpoints
    config.save_every = 1_000  # environment steps between checkpoints
    config.use_older = False  # continue from an older checkpoint where the newest is damaged
    return config


def _split(name: str) -> tuple[str, str]:
    """Take the option `explore` out of NAME."""
    parts = name.split(",")
    chosen = [part.partition("=")[2] for part in parts if part.startswith("explore=")]
    explore = chosen[-1] if chosen else "plan"
    if explore not in EXPLORE:
        raise common.UserError(
            f"unknown option explore={explore} in {name!r}; choose among {', '.join(EXPLORE)}"
        )
    return ",".join(part for part in parts if not part.startswith("explore=")), explore


# What explores: plans guided by the critic, or proposals without planning (M3PC figure 7a); in
# hindsight: proposals alone, and no critic (the recipe of the online decision transformer).
EXPLORE = {"plan": "m3pc_q", "sample": "rcbc", "hindsight": "rcbc"}
PAPER = {"updates": 200, "critic_updates": 10}
UPDATES = {"plan": PAPER, "sample": PAPER, "hindsight": PAPER | {"critic_updates": 0}}

# What a value that is unset becomes, by the preset of the pretraining run.
PRESETS = {
    "small": {
        "steps": 20_000,
        "batch_size": 128,
        "learning_rate": 3e-4,
        "candidates": 64,
        "every": 5_000,
        "episodes": 200,
        "buffer_steps": 100_000,
    },
    "base": {
        "steps": 100_000,
        "batch_size": 512,
        "learning_rate": 1e-4,
        "candidates": 625,
        "every": 20_000,
        "episodes": 1_000,
        "buffer_steps": 1_000_000,
    },
    "paper": {
        "steps": 200_000,
        "batch_size": 512,
        "learning_rate": 1e-4,
        "candidates": 625,
        "every": 20_000,
        "episodes": 1_000,
        "buffer_steps": 1_000_000,
    },
}
