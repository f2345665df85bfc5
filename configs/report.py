"""Tabulate the results of several runs, with intervals.

python -m experiments.report --config.results=results/m3pc_offline
python -m experiments.report --config.results=results/m3pc_choices/plans.jsonl --config.studies=True

Takes seconds. The first command prints the main table of docs/results.md.
"""

from ml_collections import config_dict


def get_config():
    config = config_dict.ConfigDict()
    config.results = ""  # file of results, or folder of such files
    config.baseline = "rcbc"  # method that the sums of the others are compared with
    config.studies = False  # tabulate the rows of experiments.ablation instead of all others
    config.figure = ""  # PNG file of a chart; empty: none
    return config
