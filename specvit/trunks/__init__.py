"""The torch side of the comparators: what stands in the place of a ViT's blocks. Settings: ``specvit.comparators``."""
