"""ERNIE 4.5: configs, the known family, RoPE tables, and the graphs that `ernie45` builds of a config."""
