"""Evaluate one checkpoint as every kind of policy: BC, RCBC (BTM), M3PC-M and M3PC-Q.

python -m experiments.m3pc_offline --config=configs/m3pc_offline.py:hopper-medium
python -m experiments.m3pc_offline --config.run=RUN --config.plan.candidates=2500
"""

from ml_collections import config_dict

from configs import common

NAME_KEYS = common.RUN_NAME_KEYS


def get_config(name=""):
    config = config_dict.ConfigDict()
    common.name_run(config, name)
    common.add_planning(config)
    config.eval.methods = ("bc", "rcbc", "m3pc_m", "m3pc_q")  # ways to act
    config.imagined_steps = 200  # of an episode, in the figure and the video; 0: neither
    return config
