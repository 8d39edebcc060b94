"""Training runs: the loop, accumulation, checkpoints, sparsity, diagnostics, uploads, fine-tuning."""
