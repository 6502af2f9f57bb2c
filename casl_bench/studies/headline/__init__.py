"""Which number should rank methods: synthetic editors of known precision, and a red team.

In: rendered images. Out: records, and a page made of these alone. Start at study.py; no method
takes part.
"""
