"""The built-in plugins: each module is what a third party would write."""
