"""Stable Diffusion as the base: found, checked, and trained on by adapters."""
