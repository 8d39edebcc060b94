"""Metrics that `evaluate.load` opens by their path, offline."""
