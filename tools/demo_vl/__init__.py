"""A tiny ERNIE 4.5-VL: its curriculum of pictures, its training, its measurements."""
