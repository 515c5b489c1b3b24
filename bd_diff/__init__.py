"""BD-Diff: deblurring learnt from blurry photographs without sharp twins, and three systems to compare it with."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bd_diff.pipeline import BDDiffPipeline, BDDiffPipelineOutput

__all__ = ["BDDiffPipeline", "BDDiffPipelineOutput"]
__version__ = "0.3.0"


def __getattr__(name: str):
    # The pipeline brings torch and diffusers along: seconds that `bd-diff --help` should not cost.
    if name in __all__:
        from bd_diff import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module 'bd_diff' has no attribute {name!r}")
