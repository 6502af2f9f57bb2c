"""Per-image numbers → one number with an interval. Arrays only, no networks.

In: a `ScoreTable` (score_table.py), cut to `EditScores` for one strength, target and classifier.
Out: an `Estimate`. Start at metric.py, then epr.py; `METRICS` holds all registered metrics.
"""
