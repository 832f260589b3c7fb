"""Mutants of one line each, and the tests that should kill them; `tools/mutate.py` is the command."""
