"""Triton kernels of the blocks at decode, a file each; `launch.py` starts them."""
