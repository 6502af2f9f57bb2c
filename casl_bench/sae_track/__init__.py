"""The SAE track: every dictionary on every metric, where the truth is known.

`suites` says how much, `evaluate` measures one dictionary, `edits` changes codes and generates,
`run` does all cells of a command.
"""
