"""Showing it: records and stored pictures in, markdown and PNG out. Nothing is run from here.

Start with `table.py` (`render_tables`) and `pictures.py`.
"""
