"""Published results: committed record files in, ranked pages and exports out.

Nothing is run and no network is loaded from here. Start with `boards.py` (what may be ranked
together), then `entries.py` (one row), `pages.py` (markdown), `exports.py` (LaTeX, CSV, JSON) and
`submission.py` (what a new file must be).
"""
