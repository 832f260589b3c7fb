"""The plugin's commands. What they need is imported when they run, so `--help` stays quick."""
