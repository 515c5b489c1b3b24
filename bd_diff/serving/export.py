"""Networks as ONNX files, for runtimes without PyTorch: regression systems, and BD-Diff's learned kernel estimator."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bd_diff.baselines.adarevd import AdaRevD
from bd_diff.data.writing import replacing
from bd_diff.restore import NetworkRestorer, PipelineRestorer, System

OPSET = 20
SIDE = 256  # pixels, where a file is for one size


class Regression(nn.Module):
    """A network from images to images, both `(B, 3, H, W)` in [0, 1], sides multiples of the network's step.

    AdaRevD runs all its sub-decoders on the whole image, without tiles and early exits; an image whose sides are no
    power of two is continued to the next one by reflection, since the spectra of other sizes take ONNX runtimes 5 to 10
    times as long.
    """

    def __init__(self, restorer: NetworkRestorer):
        super().__init__()
        self.network, self.lowest = restorer.network, restorer.lowest

    def forward(self, images: Tensor) -> Tensor:
        span = 1 - self.lowest
        pixels = images * span + self.lowest
        network = self.network
        if isinstance(network, AdaRevD):
            height, width = pixels.shape[-2:]
            padded = F.pad(pixels, (0, power_of_two(width) - width, 0, power_of_two(height) - height), mode="reflect")
            restored = network.every_depth(padded)[-1][..., :height, :width]
        else:
            restored = network(pixels)
        return ((restored - self.lowest) / span).clamp(0, 1)


def power_of_two(side: int) -> int:
    """The smallest power of two that is not below `side`."""
    return 1 << (side - 1).bit_length()


class KernelEstimator(nn.Module):
    """BD-Diff's learned kernel estimate (`fast=True`): images `(B, 3, H, W)` in [0, 1] to kernels `(B, 33, 33)`."""

    def __init__(self, pipeline):
        super().__init__()
        self.image_encoder, self.blur_qformer = pipeline.image_encoder, pipeline.blur_qformer
        self.blur_decoder = pipeline.blur_decoder

    def forward(self, images: Tensor) -> Tensor:
        features = self.image_encoder(images * 2 - 1, read=("blur",))
        return self.blur_decoder(self.blur_qformer(features.blur))


@torch.no_grad()
def export(restorer: System, path: Path, side: int = SIDE) -> str:
    """Write a system as an ONNX file; returns a description of its input and output.

    A regression network takes any batch and size (sides multiples of its step). AdaRevD and the kernel estimator, the
    part of BD-Diff that is exported, take single images of `side` x `side` pixels, because FFTs exported for any size
    fail when run; for AdaRevD a power of two is fastest. Raises `ValueError` for a BD-Diff without a blur decoder, a
    side that AdaRevD cannot take, and where ONNX is not installed.
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError:
        raise ValueError("exporting needs ONNX; install it: pip install 'bd-diff[export]'") from None
    module: nn.Module
    if isinstance(restorer, PipelineRestorer):
        if restorer.pipeline.blur_decoder is None:
            raise ValueError("this BD-Diff has no blur_decoder, so it has no kernel estimator to export")
        module, multiple, fixed = KernelEstimator(restorer.pipeline), 1, True
        output, gives = "kernels", "kernels (1, 33, 33)"
    else:
        module, multiple = Regression(restorer), getattr(restorer.network, "multiple", 1)
        fixed = isinstance(restorer.network, AdaRevD)
        output, gives = "restored", "the same"
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
    assert program is not None  # with dynamo there always is one
    with replacing(path) as part:
        program.save(part, external_data=False)
    takes = f"(1, 3, {side}, {side})" if fixed else f"(B, 3, H, W), H and W multiples of {multiple},"
    return f"images {takes} in [0, 1] to {gives}"
