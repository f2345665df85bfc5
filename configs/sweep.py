"""Run an experiment over data sets and seeds, on Slurm or on this machine.

python -m experiments.sweep --config.experiment=pretrain --config.names="('hopper-medium',)"
"""

from ml_collections import config_dict


def get_config():
    config = config_dict.ConfigDict()
    config.experiment = "pretrain"  # the program: python -m experiments.EXPERIMENT
    config.names = ("hopper-medium",)  # one job for each NAME of configs/EXPERIMENT.py:NAME ...
    config.seeds = (0,)  # ... and each of these; empty: the program is given no seed
    config.overrides = ()  # more keys, "KEY=VALUE"; {name} and {seed} stand for the job's
    config.executor = "slurm"  # or local: on this machine
    config.folder = "runs/sweep"  # logs, and what submitit needs; shared by the cluster's machines
    config.parallel = 8  # jobs that run at once
    config.hours = 24.0  # of one job, until it is stopped and queued again
    config.requeues = 20  # how often that may be
    config.gpus = 1  # of a job; on this machine all jobs share the first ones
    config.cpus = 8  # of a job, on Slurm
    config.memory_gb = 64  # of a job, on Slurm
    config.partition = ""  # of Slurm; empty: its default
    return config
