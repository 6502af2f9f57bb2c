"""What is kept of a run: one `RunRecord` a cell, in a folder that is whole or absent.

In: estimates and facts about the run. Out: record.json, scores.csv, records.jsonl.
Start at record.py; record_store.py keeps them; schema.json is the published format.
"""
