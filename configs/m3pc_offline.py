"""Evaluate one run as a policy (bc, rcbc) and by planning: M3PC-M, M3PC-Q and their control.

M3PC (Wen et al., ICLR 2025), table 1. The control m3pc_0 averages the same candidates as M3PC-M
without choosing among them. M3PC-Q needs the run's critic (experiments.critic), and so does m3pc_v,
which values predicted states by it.

python -m experiments.m3pc_offline --config=configs/m3pc_offline.py:hopper-medium
python -m experiments.m3pc_offline --config.run=RUN --config.plan.candidates=2500

Preset small, 64 candidates, 10 episodes, on one CPU core: 4 to 11 minutes. hopper-medium, means of
three seeds: bc 34.3, rcbc 44.5, m3pc_m 36.7, m3pc_q 57.5 (results/m3pc_offline; docs/results.md).
"""

from ml_collections import config_dict

from configs import common

NAME_KEYS = common.RUN_NAME_KEYS
METHODS = ("bc", "rcbc", "m3pc_0", "m3pc_m", "m3pc_q")


def get_config(name=""):
    config = config_dict.ConfigDict()
    common.name_run(config, name)

    # Planning and evaluation
    common.add_planning(config)
    config.eval.methods = METHODS  # methods to evaluate; m3pc_v is another
    config.prompt = config_dict.ConfigDict(common.PROMPT)

    # Figure and video
    config.imagined_steps = 200  # steps of the episode in the figure and the video; 0: draw neither
    return config
