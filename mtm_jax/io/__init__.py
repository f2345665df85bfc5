"""Files of a run: checkpoints, metrics, results; and the progress bar."""
