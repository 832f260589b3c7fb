"""The demo model: its curriculum, its tokenizer, and its training."""
