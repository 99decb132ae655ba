"""How trials are expanded, dispatched, judged, recorded and tabulated."""
