"""h → z: a sparse code of the bottleneck's activations, and back.

In: h at every visited timestep of inverted images. Out: an `HSpaceSae` with its quality beside PCA.
Start at sparse_autoencoder.py (two formulas), then h_space_sae.py; trainer.py fits it.
"""
