"""The executor on Ray. The only import of ray."""
