"""Predictions, and the figures and intervals computed from them."""
