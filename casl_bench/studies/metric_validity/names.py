"""What the files of the study are called."""

from __future__ import annotations

NAME = "metric_validity"
RECORDS = f"{NAME}.jsonl"
PAGE = f"{NAME}.md"
RANKING_FIGURE = f"{NAME}_ranking.png"
RESPONSE_FIGURE = f"{NAME}_response.png"
