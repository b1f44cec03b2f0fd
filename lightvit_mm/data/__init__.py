"""Data sets: a generator of small labelled scenes, and what checks or reads data on disk."""
