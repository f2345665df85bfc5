"""What programs share: the command line, run folders, signals, failures."""
