"""Exporting models to files for devices, which are compared with PyTorch before they appear."""
