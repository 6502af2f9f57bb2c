"""In which process a cell is run."""
