"""Doing it: a checked command in, a run folder of records out.

Start with `config.py` (what is asked), `plan.py` (which cells that makes) and `runner.py`.
"""
