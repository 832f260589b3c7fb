"""Other programs that run the same models."""
