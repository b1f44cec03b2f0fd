"""Reproducing published results: the results, checks of the configs, runs and comparisons."""
