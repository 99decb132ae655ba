"""CaiT: [CLS] joins in class-attention blocks at the end."""
