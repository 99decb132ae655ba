"""The segmentation probe of patch tokens."""
