"""Sparse autoencoders on h: the code, its training, its quality beside PCA."""
