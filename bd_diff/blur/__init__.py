"""Blur: kernels, synthesis and curricula shared by every system."""
