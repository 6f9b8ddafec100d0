"""Built-in cohorts."""
