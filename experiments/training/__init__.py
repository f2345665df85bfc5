"""What training programs share: building, the loop over runs, saving and resuming."""
