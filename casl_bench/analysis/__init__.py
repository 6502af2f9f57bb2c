"""Per-image scores to numbers: measurements, comparison, bounds of controls. No torch."""
