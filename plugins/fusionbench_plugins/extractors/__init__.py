"""Feature extractors of this distribution."""
