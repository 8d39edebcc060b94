"""Whole experiments from the scripts' own commands: the demo, ablations."""
