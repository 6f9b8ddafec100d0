"""Built-in attention modules."""
