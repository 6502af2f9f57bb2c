"""Published records as pages, and the checks that a submission passes."""
