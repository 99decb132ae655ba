"""Learners: the torch side of the recipes. ``specvit.objectives`` builds them."""
