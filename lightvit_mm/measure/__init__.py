"""Timing, profiles, limits of a machine, and counts."""
