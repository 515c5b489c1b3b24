"""The diffusers pipeline: `BDDiffPipeline`, the checks of its arguments, and its output."""

from bd_diff.pipeline.bd_diff_pipeline import BDDiffPipeline
from bd_diff.pipeline.pipeline_output import BDDiffPipelineOutput

__all__ = ["BDDiffPipeline", "BDDiffPipelineOutput"]
