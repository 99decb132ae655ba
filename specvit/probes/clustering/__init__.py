"""Clusters of patch tokens against classes: ``probe`` holds the settings and scores, ``kmeans`` finds the clusters."""

from specvit.probes.clustering.probe import Clustering

__all__ = ["Clustering"]
