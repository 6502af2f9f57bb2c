"""What CASL's paper asks, answered here: do aligned latents exist, act, act alone and precisely?

In: a finished run. study.py takes latents away from its fitted maps or keeps only some, and edits
with the rest. Out: rows, and a page made of the run's records and these rows alone.
"""
