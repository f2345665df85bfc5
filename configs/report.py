"""Tabulate results of several runs.

python -m experiments.report --config.results=results/m3pc_offline
python -m experiments.report --config.results=results/m3pc_choices/plans.jsonl --config.studies=True
"""

from ml_collections import config_dict


def get_config():
    config = config_dict.ConfigDict()
    config.results = ""  # a file of results, or a folder of such files
    config.baseline = "rcbc"  # the method that the others are compared with
    config.studies = False  # True: the rows of experiments.ablation, beside rows that vary nothing
    config.figure = ""  # PNG file of a chart; empty: none
    return config
