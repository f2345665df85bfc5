"""Acting with masks: the window of recent history, and the roles that prompts give the model."""
