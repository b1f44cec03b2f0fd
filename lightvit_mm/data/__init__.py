"""Checks of data sets on disk, and configs for the user's own data."""
