"""Reach goals with a pretrained run: `python -m experiments.m3pc_goal`."""
