"""Which environment data were recorded in, and whether it is the one that they are evaluated in."""
