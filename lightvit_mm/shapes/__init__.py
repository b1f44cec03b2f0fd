"""The generator of the embedded data set."""
