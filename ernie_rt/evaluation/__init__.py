"""How well a model predicts a text, and how far another configuration is from it (docs/eval.md)."""
