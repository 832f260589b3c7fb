"""What a model is: types, ops at three levels, graphs, and what can be done with one. Begin with `types`."""
