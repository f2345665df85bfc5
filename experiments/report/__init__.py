"""The command `python -m experiments.report`."""
