"""Measuring the speed and memory of backbones, and checking a device's numbers."""
