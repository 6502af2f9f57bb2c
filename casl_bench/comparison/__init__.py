"""Methods against each other: what may be said of them, and with how much noise.

In: scores of methods on concepts for any weights of the images (resampling.py). Out: means with
intervals (aggregate.py), differences of pairs (paired.py), ranks left open (ranks.py), and what an
order rests on. Start at resampling.py. These know numbers alone; cell_scores.py, standings.py and
controls.py make them of per-image scores and records.
"""
