"""The work of tools/gpu_check.py: what a GPU computes, and how fast, in a few minutes."""
