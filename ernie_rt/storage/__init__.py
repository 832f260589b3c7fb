"""The ways to store a weight beside `Plain`: one file has all of one. `ernie_rt.graph.types` says what a storage is."""
