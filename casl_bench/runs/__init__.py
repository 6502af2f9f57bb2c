"""A checked command in, a run folder of cells out.

Start with `suites.py` (what is asked), `plan.py` (which cells that makes), `cell.py` (how one is
run) and `executor.py`.
"""
