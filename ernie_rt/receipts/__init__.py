"""Receipts of answers: written, read again however hostile, and replayed elsewhere (docs/receipts.md)."""
