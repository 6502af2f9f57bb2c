"""One cell: fit, edit, score, record; and what all cells of a data set make."""
