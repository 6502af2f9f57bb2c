"""What CASL's paper asks, answered here: do aligned latents exist, act, act alone and precisely?

In: a finished run. latent_edits.py takes latents away from its fitted maps or keeps only some,
latent_study.py edits with what is left and leaves rows. Out: a page of the run's records and these
rows alone. Start at latent_study.py.
"""
