"""Lets diffusers find the pipeline class of this folder, where bd_diff is installed."""

from bd_diff import BDDiffPipeline

__all__ = ["BDDiffPipeline"]
