"""Evaluate one checkpoint as every kind of policy: BC, RCBC (BTM), M3PC-M and M3PC-Q.

python -m experiments.m3pc_offline --config=configs/m3pc_offline.py:hopper-medium
python -m experiments.m3pc_offline --config.run=RUN --config.plan.candidates=2500
"""

from ml_collections import config_dict

from experiments import named_run, presets

NAME_KEYS = named_run.NAME_KEYS


def get_config(name=""):
    config = config_dict.ConfigDict()
    named_run.name(config, name)
    config.eval = config_dict.ConfigDict()
    config.eval.methods = ("bc", "rcbc", "m3pc_m", "m3pc_q")
    config.eval.episodes = 20
    config.eval.seed = 1_000  # environments are reset with seed, seed + 1, ...
    config.eval.target_fraction = 1.0  # of the best return in the training data
    config.world = ""  # run whose model answers what plans lead to; empty: the run's own
    config.plan = config_dict.ConfigDict(presets.PLAN)
    config.m3pc_m = config_dict.ConfigDict(presets.PLAN_M)  # instead, where M3PC-M plans
    config.m3pc_q = config_dict.ConfigDict(presets.PLAN_Q)  # instead, where M3PC-Q plans
    config.imagined_steps = 200  # of an episode, in the figure and the video; 0: neither
    return config
