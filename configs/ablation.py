"""Vary one option of the plans of a run: the horizon, the candidates, lambda, xi and others.

M3PC (Wen et al., ICLR 2025), figures 7 to 9.

python -m experiments.ablation --config=configs/ablation.py:hopper-medium --config.study=horizon
python -m experiments.ablation --config.run=RUN --config.study=xi --config.choices="(0.1,1.0,10.0)"

Preset small, 64 candidates, 10 episodes of hopper, on one CPU core: about 140 s for a value of the
option. Results: results/m3pc_ablations and docs/m3pc_ablations.png.
"""

from ml_collections import config_dict

from configs import common

NAME_KEYS = common.RUN_NAME_KEYS


def get_config(name=""):
    config = config_dict.ConfigDict()
    common.name_run(config, name)

    # What varies
    config.study = "horizon"  # option to vary: candidates, horizon, lambda_, xi, readout, ...
    config.choices = ()  # values of that option; empty: the usual ones of the study
    config.methods = ("m3pc_m",)  # planning methods: m3pc_0, m3pc_m, m3pc_v, m3pc_q

    # Planning and evaluation
    common.add_planning(config)
    return config
