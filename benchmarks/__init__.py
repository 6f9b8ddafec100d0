"""Measurements quoted in the documents; `python -m benchmarks` takes those that have a target."""
