"""Published diffusion checkpoints, read and converted."""
