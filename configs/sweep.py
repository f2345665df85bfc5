"""Run an experiment over data sets and seeds, on Slurm or on this machine.

python -m experiments.sweep --config.names="('hopper-medium','walker2d-medium')" \
    --config.seeds="(0,1,2)" --config.executor=local

It needs submitit: .venv/bin/pip install -e '.[cluster]'
"""

from ml_collections import config_dict


def get_config():
    config = config_dict.ConfigDict()

    # Jobs: one for each name and seed
    config.experiment = "pretrain"  # program to run: python -m experiments.EXPERIMENT
    config.names = ("hopper-medium",)  # names for configs/EXPERIMENT.py:NAME
    config.seeds = (0,)  # seeds; empty: the program is given none
    config.overrides = ()  # further keys, "KEY=VALUE"; {name} and {seed} stand for those of a job

    # Resources
    config.executor = "slurm"  # slurm, or local: this machine
    config.folder = "runs/sweep"  # folder of the logs; on a cluster all its machines must see it
    config.parallel = 8  # jobs that run at the same time
    config.hours = 24.0  # time limit of a job, after which it is queued again and continues
    config.requeues = 20  # times that a job may be queued again
    config.gpus = 1  # GPUs of a job; on this machine all jobs share the first ones
    config.cpus = 8  # CPU cores of a job, on Slurm
    config.memory_gb = 64  # memory of a job in GB, on Slurm
    config.partition = ""  # partition of Slurm; empty: its default
    return config
