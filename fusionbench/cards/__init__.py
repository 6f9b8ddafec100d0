"""Cards: what a cohort is, and everything that is wrong with it."""
