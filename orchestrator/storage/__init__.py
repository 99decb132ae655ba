"""The results folder, here or at a URL: lock, checkpoints, commands, mirror."""
