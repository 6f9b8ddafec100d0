"""Measurements behind tables of the documents that have no target: `python -m benchmarks.studies.NAME`."""
