"""Renderers of faces, dogs and churches with known factors."""
