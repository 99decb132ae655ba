"""What a trial computes: models, data, pretraining recipes, probes."""
