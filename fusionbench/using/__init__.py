"""Using what was trained: models of a run on subjects that are not its own."""
