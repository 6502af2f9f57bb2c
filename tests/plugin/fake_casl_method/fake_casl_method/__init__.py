"""A third-party editing method, as somebody else would publish it."""
