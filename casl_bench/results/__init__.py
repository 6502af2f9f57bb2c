"""A run folder: records, per-image scores, edited images, provenance."""
