"""Names that files, page and study share."""

COMMAND = "casl-bench study paper-questions"
ROWS = "paper_questions.jsonl"
PAGE = "paper_questions.md"
FIGURE = "paper_questions.png"
MAP, STEER = "casl", "casl_steer"
"""The edit with the whole map, and with its top-k latents."""
