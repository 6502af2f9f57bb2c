"""What cells share: inversions, the SAE, fits, and records of other runs."""
