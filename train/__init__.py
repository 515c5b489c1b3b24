"""The training scripts, one a system."""
