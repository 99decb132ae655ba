"""A data source and a probe for specsweep."""
