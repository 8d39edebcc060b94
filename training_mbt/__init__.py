"""What the scripts share: arguments, data, optimisation, checkpoints, classification, reports, the built-in corpus."""
