"""The torch code of the depth probe: one file per protocol, loaded when a probe is evaluated."""
