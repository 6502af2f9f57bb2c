"""Photographs on disk and the models for them. A guest: the core never imports it."""
