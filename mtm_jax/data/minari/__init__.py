"""Minari data sets: reading, downloading and writing."""
