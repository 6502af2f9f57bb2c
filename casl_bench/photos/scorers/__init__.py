"""Published scorers of photographs."""
