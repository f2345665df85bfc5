"""Vary one setting of the plans of a run: horizon, candidates, lambda, xi and others.

python -m experiments.ablation --config=configs/ablation.py:hopper-medium --config.study=horizon
python -m experiments.ablation --config.run=RUN --config.study=xi --config.choices="(0.1,1.0,10.0)"
"""

from ml_collections import config_dict

from experiments import named_run, presets

NAME_KEYS = named_run.NAME_KEYS


def get_config(name=""):
    config = config_dict.ConfigDict()
    named_run.name(config, name)
    config.study = "horizon"  # a setting of plans, such as candidates, lambda_, xi, readout
    config.choices = ()  # of that setting; empty: those of the study
    config.methods = ("m3pc_m",)  # m3pc_m, m3pc_q
    config.eval = config_dict.ConfigDict()
    config.eval.episodes = 20
    config.eval.seed = 1_000  # environments are reset with seed, seed + 1, ...
    config.eval.target_fraction = 1.0  # of the best return in the training data
    config.world = ""  # run whose model answers what plans lead to; empty: the run's own
    config.plan = config_dict.ConfigDict(presets.PLAN)
    config.m3pc_m = config_dict.ConfigDict(presets.PLAN_M)  # instead, where M3PC-M plans
    config.m3pc_q = config_dict.ConfigDict(presets.PLAN_Q)  # instead, where M3PC-Q plans
    return config
