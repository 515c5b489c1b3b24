"""Networks as ONNX files, for runtimes without PyTorch: regression systems, and BD-Diff's learned kernel estimator."""

from pathlib import Path

import torch
from torch import Tensor, nn

from bd_diff.baselines.adarevd import AdaRevD
from bd_diff.data.images import replacing
from bd_diff.models.blur_decoder import decode_kernels
from bd_diff.restore import NetworkRestorer, PipelineRestorer, Restorer

OPSET = 20
SIDE = 256  # pixels, where a file is for one size


class Regression(nn.Module):
    """A network from images to images, both `(B, 3, H, W)` in [0, 1], sides multiples of the network's step.

    AdaRevD runs all its sub-decoders on the whole image, without tiles and early exits.
    """

    def __init__(self, restorer: NetworkRestorer):
        super().__init__()
        self.network, self.lowest = restorer.network, restorer.lowest

    def forward(self, images: Tensor) -> Tensor:
        span = 1 - self.lowest
        pixels = images * span + self.lowest
        deep = isinstance(self.network, AdaRevD)
        restored = self.network.every_depth(pixels)[-1] if deep else self.network(pixels)
        return ((restored - self.lowest) / span).clamp(0, 1)


class KernelEstimator(nn.Module):
    """BD-Diff's eyes without the search (`fast=True`): images `(B, 3, H, W)` in [0, 1] to kernels `(B, 33, 33)`."""

    def __init__(self, pipeline):
        super().__init__()
        self.image_encoder, self.blur_qformer = pipeline.image_encoder, pipeline.blur_qformer
        self.blur_decoder = pipeline.blur_decoder

    def forward(self, images: Tensor) -> Tensor:
        features = self.image_encoder(images * 2 - 1, read=("blur",))
        return decode_kernels(self.blur_decoder, self.blur_qformer(features.blur), features)


@torch.no_grad()
def export(restorer: Restorer, path: Path, side: int = SIDE) -> str:
    """Write a system's ONNX file, and say what it takes and gives.

    A regression network takes any batch and size (sides multiples of its step), but for AdaRevD, whose spectra are
    taken of one size: single images of `side` x `side` pixels. So is the kernel estimator, which is written of BD-Diff.
    Raises `ValueError` for a BD-Diff without a blur decoder, a side that AdaRevD cannot take, and where ONNX is not
    installed.
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError:
        raise ValueError("exporting needs ONNX; install it: pip install 'bd-diff[export]'") from None
    if isinstance(restorer, PipelineRestorer):
        if restorer.pipeline.blur_decoder is None:
            raise ValueError("this BD-Diff has no blur_decoder, so it has no kernel estimator to export")
        module, multiple, output, gives = KernelEstimator(restorer.pipeline), 1, "kernels", "kernels (1, 33, 33)"
    else:
        module, multiple, output, gives = (
            Regression(restorer),
            getattr(restorer.network, "multiple", 1),
            "restored",
            "the same",
        )
    fixed = not hasattr(restorer, "network") or isinstance(restorer.network, AdaRevD)
    if fixed and side % multiple:
        raise ValueError(f"side is {side}; {restorer.name} takes multiples of {multiple}")
    # Sides that differ, and two images: what is equal or 1 would be taken for fixed.
    shape = (1, 3, side, side) if fixed else (2, 3, 4 * multiple, 8 * multiple)
    program = torch.onnx.export(
        module.eval(),
        (torch.rand(shape, device=next(module.parameters()).device),),
        input_names=["images"],
        output_names=[output],
        dynamic_shapes=None if fixed else ({0: "batch", 2: "height", 3: "width"},),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    with replacing(path) as part:
        program.save(part, external_data=False)
    takes = f"(1, 3, {side}, {side})" if fixed else f"(B, 3, H, W), H and W multiples of {multiple},"
    return f"images {takes} in [0, 1] to {gives}"
