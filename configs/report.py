"""Write a page about runs, or tabulate the results of many with intervals.

python -m experiments.report RUN OTHER_RUN
python -m experiments.report --config.results=results/m3pc_offline
python -m experiments.report --config.results=results/m3pc_choices/plans.jsonl --config.studies=True

Takes seconds. The second command prints the main table of docs/results.md.
"""

from ml_collections import config_dict


def get_config():
    config = config_dict.ConfigDict()
    config.runs = ()  # run folders to write a page about, the same as RUN ...
    config.page = ""  # HTML file of that page; empty: report.html in the first run folder
    config.results = ""  # file of results, or folder of such files, to tabulate
    config.baseline = "rcbc"  # method that the others are compared with
    config.studies = False  # tabulate the rows of experiments.ablation instead of all others
    config.figure = ""  # PNG file of a chart of the results; empty: none
    return config
