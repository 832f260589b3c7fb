"""Plugins of strangers: which there are, and what they announce, heard in a child process."""
