"""Everything around the models: corpora, data, inference, probing, training, reports, experiments."""
