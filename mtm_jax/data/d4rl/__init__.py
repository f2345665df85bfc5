"""D4RL data sets: reading and downloading."""
