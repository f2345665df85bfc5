"""The masked trajectory model, its pruned pass, and the networks of critics and actors."""
