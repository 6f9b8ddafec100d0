"""The pytest plugin: one test per promise of an installed component."""
