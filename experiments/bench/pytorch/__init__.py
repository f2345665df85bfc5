"""The same training step and decision in plain PyTorch, which ours are compared with."""
