"""ExORL data sets: reading, and relabelling rewards."""
