"""Deciding with a pretrained model: recent history, roles of the model, and forward M3PC."""
