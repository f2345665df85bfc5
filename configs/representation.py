"""TD3 on what a masked model knows: raw states against features, frozen and finetuned.

Pretrains one model on the states and actions of an explorer without reward, then trains TD3 on the
tasks of the same robot (MTM section 4.5, figures 7 and E.3).

python -m experiments.representation --config.quick=True
python -m experiments.representation
python -m experiments.representation --config.pretraining_steps=24000 --config.out=runs/longer
"""

from ml_collections import config_dict

unset = config_dict.placeholder


def get_config():
    config = config_dict.ConfigDict()
    config.tasks = ("stand", "walk", "run")  # tasks of the walker
    config.features = tuple(FEATURES)  # what TD3 sees; raw is what the others are compared with
    config.preset = "small"  # size of the model, of the networks and of the training: small, paper
    config.seed = 0  # seed of the pretraining, and the first one of TD3
    config.seeds = 3  # seeds of TD3, trained in one program
    config.data_steps = unset(int)  # steps of the explorer's data; unset: by preset
    config.pretraining_steps = unset(int)  # gradient steps of the model; unset: by preset
    config.steps = unset(int)  # updates of TD3; unset: by preset
    config.every = 1_000  # updates between evaluations, a multiple of 500
    config.episodes = 5  # episodes of each of these
    config.eval_seed = 1_000  # environments are reset with this seed, seed + 1, ...
    config.out = ""  # folder; empty: runs/representation, with -quick if quick
    config.quick = False  # minutes instead of hours: a task, short trainings, one seed
    config.report = False  # print and draw what there is, without training anything
    return config


# Name of what TD3 sees -> keys of experiments.td3.
FEATURES = {
    "raw": {},
    "states_frozen": {"kind": "states", "finetuned": False},
    "states_finetuned": {"kind": "states", "finetuned": True},
    "pairs_frozen": {"kind": "pairs", "finetuned": False},
    "pairs_finetuned": {"kind": "pairs", "finetuned": True},
}
QUICK = {
    "tasks": ("stand",),
    "seeds": 1,
    "data_steps": 20_000,
    "pretraining_steps": 200,
    "steps": 1_000,
    "every": 500,
    "episodes": 2,
}
