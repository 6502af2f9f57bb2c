"""Pictures before and after an edit, made by anything: scored from folders, arrays or logits.

A guest: no room below imports it. `scores` is numpy alone; `files` reads folders and logits;
`scorers` loads classifiers and similarities; `score` puts them together.
"""
