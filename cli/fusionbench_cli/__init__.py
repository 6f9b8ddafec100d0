"""The command line: commands without logic, and their rendering."""
