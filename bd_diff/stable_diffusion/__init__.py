"""Stable Diffusion as the base: finding it, checking it, and training on it with adapters."""
