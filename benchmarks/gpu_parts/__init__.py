"""What benchmarks/gpu.py is made of: a module for each part, and what they share."""
