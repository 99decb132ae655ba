"""Where [CLS] has weights of its own: the language. No torch."""
