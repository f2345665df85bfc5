"""Measure what planning has to choose by: `python -m experiments.plan_signal`."""
