"""Training: configuration, samples, the joint objective, the loop and its checkpoints."""
