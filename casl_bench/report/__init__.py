"""Numbers to pages: markdown, HTML, leaderboard, exports. No model is loaded here."""
