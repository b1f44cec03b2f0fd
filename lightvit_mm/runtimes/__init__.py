"""Runtimes for exported files."""
