"""The targets, one a file: its `TARGET` has the file's name."""
