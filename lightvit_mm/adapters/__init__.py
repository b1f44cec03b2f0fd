"""Adapters of the backbones to other frameworks; import the one that you need."""
