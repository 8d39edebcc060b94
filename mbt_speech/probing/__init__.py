"""What frozen representations tell: encoders and controls, linear heads, metrics, the probe of a run."""
