"""Runs and data to look at: the report of a run, and what a model sees of its data."""
