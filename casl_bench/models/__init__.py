"""Frozen networks and their loading: backbone, CLIP, classifiers, embedder, factor regressor."""
