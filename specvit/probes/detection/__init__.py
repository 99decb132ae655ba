"""The detection probe of patch tokens."""
