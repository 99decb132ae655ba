"""Jumbo: a wide [CLS] with an MLP of its own."""
