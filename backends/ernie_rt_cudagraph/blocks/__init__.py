"""The blocks as functions of tensors: what an Interpreter calls, by op name."""
