"""Measurements behind tables of the documents that have no target; the docstring of each says how it is called."""
