"""The commands of `bd-diff`, one module each. They import torch when they run, not when they are listed."""
