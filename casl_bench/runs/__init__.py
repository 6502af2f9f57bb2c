"""Doing it: a checked command in, a run folder of records out.

Start with `planning/config.py` (what is asked), `planning/plan.py` (which cells that makes),
`cells/dataset_run.py` (how one is run) and `execution/runner.py`.
"""
