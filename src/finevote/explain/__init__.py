"""Photographs of a run explained: a figure and its numbers for each, as files."""
