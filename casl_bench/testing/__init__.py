"""For authors of methods and data sets: does it keep the benchmark's rules?

In: a method class or a data set. Out: one verdict a rule. Start with `check_method.py`; the toy
world of `toy_world.py` is what methods are tried on.
"""
