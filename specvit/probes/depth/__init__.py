"""The depth probe of patch tokens."""
