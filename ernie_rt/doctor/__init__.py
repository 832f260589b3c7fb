"""What is wrong with this machine, or slower than need be: found by running a small model on all that there is."""
