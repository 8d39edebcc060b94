"""From recordings to batches: folders and data sets, splits and labels, crops, streams, samplers."""
