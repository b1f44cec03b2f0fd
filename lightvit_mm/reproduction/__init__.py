"""Reproducing the published results: what they are, whether the configs fit, how runs compare."""
