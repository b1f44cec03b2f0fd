"""Pages and pictures of runs and data: the report of a run, the sheet of training images."""
