"""Token pooling: patches are pooled on the way."""
