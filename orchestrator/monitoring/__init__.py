"""Watching a sweep: live view, status, events, Prometheus."""
