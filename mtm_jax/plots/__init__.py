"""Figures, videos and the statistics behind them."""
