"""From a YAML file to ordered, hashed trials."""
