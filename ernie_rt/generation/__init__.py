"""What a caller may say about a generation, what a checkpoint says where the caller is silent, and the answer."""
