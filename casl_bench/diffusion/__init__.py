"""DDIM inversion and generation, and the trajectories that they leave on disk."""
