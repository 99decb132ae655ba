"""The torch code of the segmentation probe: one file per protocol, loaded when a probe is evaluated."""
