"""Measuring speed and memory: fair comparisons of modules in one process."""
