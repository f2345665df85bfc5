"""Time everything on this machine: `python -m experiments.bench`."""
