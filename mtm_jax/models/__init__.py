"""The masked trajectory model and the critics: linen modules and how tokens are laid out."""
