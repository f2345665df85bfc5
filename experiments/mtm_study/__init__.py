"""The studies of MTM: see __main__.py."""
