"""Data sources: built-in behaviours, D4RL files, Minari ids; checked at the door."""
