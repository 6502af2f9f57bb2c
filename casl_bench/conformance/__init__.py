"""Checks for authors of methods and data sets."""
