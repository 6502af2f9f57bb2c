"""Is a metric any good? Edits whose truth is known, scored as a method's edits are.

In: drawn images, graded edits of them (graded_edits.py) and tricks (gaming.py). Out: records, and a
page with figures made of these alone. Start at study.py; nothing here marks a method.
"""
