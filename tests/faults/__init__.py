"""What writes files, while calls fail, disks fill up, processes are killed and power is lost.

`python -m faults` (with PYTHONPATH=tests) does all of it and prints the figures; the default suite does a share.
"""
