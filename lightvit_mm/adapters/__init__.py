"""The backbones in other frameworks; import the adapter that you need by its name."""
