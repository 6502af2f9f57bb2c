"""Did a change make editing worse? Two run folders → one verdict a (data set, method).

In: a base and a head, run on the same images with the same seeds. Out: a `GateReport`, and from it
JSON, JUnit, markdown, annotations and feeds of trend pages. Start at gate.py; measure.py has the
statistics, decide.py the verdicts. Nothing here loads a model.
"""
