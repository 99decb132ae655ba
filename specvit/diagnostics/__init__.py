"""What [CLS] and patches look like inside a ViT."""
