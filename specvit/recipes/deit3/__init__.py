"""DeiT-III."""
