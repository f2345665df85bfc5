"""Evaluate a pretraining run again as a policy, with other settings.

python -m experiments.evaluate --config.run=runs/pretrain/hopper-medium-m3pc-small-seed0

Ten episodes of hopper take 5 to 20 s for each method on one CPU core
(results/m3pc_offline/hopper_medium.jsonl).
"""

from ml_collections import config_dict

from configs import common


def get_config():
    config = config_dict.ConfigDict()
    config.run = ""  # run folder of the pretraining
    config.weights = "auto"  # weights of the checkpoint: latest, average, or auto: average if any

    # Evaluation
    config.eval = config_dict.ConfigDict()
    config.eval.methods = ("bc", "rcbc")  # methods to evaluate: bc, rcbc
    config.eval.episodes = 20  # episodes of each method
    config.eval.seed = 1_000  # environments are reset with this seed, seed + 1, ...
    config.eval.target_fraction = 1.0  # return to aim for: 0 is the data's mean, 1 its best
    config.prompt = config_dict.ConfigDict(common.PROMPT)
    return config
