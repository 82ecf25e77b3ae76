"""Bundles given away and fetched: a model card, and the way to the hub and back."""
