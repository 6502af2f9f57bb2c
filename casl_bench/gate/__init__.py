"""Did a change make editing worse? Two run folders → one verdict per (data set, method).

Base and head ran on the same images with the same seeds. `run_side` reads a run, `log_ratio`
estimates the change of each method, `gate` turns changes into verdicts, `compare_runs` is
`--compare`, `outputs` writes the report. Nothing here loads a model.
"""
