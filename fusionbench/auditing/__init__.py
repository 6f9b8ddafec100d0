"""Auditing: numbers of a published table that cannot be."""
