"""Checkpoints and where they come from: files, recipes per dialect, the hub, and the sources that fill buffers."""
