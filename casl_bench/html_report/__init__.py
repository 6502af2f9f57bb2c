"""A report that opens from disk: records and stored pictures in, one folder of web pages out.

Start with `build.py` (`write_report`). Nothing is run from here, and no page asks for anything
outside its folder.
"""
