"""Measuring the speed and memory of backbones and of whole models."""
