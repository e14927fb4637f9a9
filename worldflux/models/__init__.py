"""Model families, one folder each, and the catalogue of their presets."""
