"""List, inspect, collect, convert and download data sets: `python -m experiments.data`."""
