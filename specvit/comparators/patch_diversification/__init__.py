"""Patch diversification: losses that keep patches apart."""
