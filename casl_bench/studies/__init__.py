"""Studies: a question each, answered by one command that leaves records and a page.

metric_validity asks whether the metrics are any good, paper_questions whether what CASL's paper
claims holds here. Nothing here marks a method.
"""
