"""Is a metric any good? Edits whose truth is known, scored as a method's edits are.

In: rendered images, graded edits of them (edits.py) and tricks (tricks.py). Out: records, and a
page with figures made of these alone. Start at study.py; no method takes part.
"""
