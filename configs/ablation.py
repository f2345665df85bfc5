"""Vary one setting of the plans of a run: horizon, candidates, lambda, xi and others.

python -m experiments.ablation --config=configs/ablation.py:hopper-medium --config.study=horizon
python -m experiments.ablation --config.run=RUN --config.study=xi --config.choices="(0.1,1.0,10.0)"
"""

from ml_collections import config_dict

from configs import common

NAME_KEYS = common.RUN_NAME_KEYS


def get_config(name=""):
    config = config_dict.ConfigDict()
    common.name_run(config, name)
    common.add_planning(config)
    config.study = "horizon"  # a setting of plans, such as candidates, lambda_, xi, readout
    config.choices = ()  # of that setting; empty: those of the study
    config.methods = ("m3pc_m",)  # m3pc_m, m3pc_q
    return config
