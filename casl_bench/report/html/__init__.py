"""A run folder as pages that open in a browser from disk."""
