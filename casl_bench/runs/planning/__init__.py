"""What a run will do: a checked command, its cells and their keys."""
