"""Networks as ONNX files, for runtimes without PyTorch: regression systems, and BD-Diff's learned kernel estimator."""

from pathlib import Path

import torch
from torch import Tensor, nn

from bd_diff.data.images import replacing
from bd_diff.restore import NetworkRestorer, PipelineRestorer, Restorer

OPSET = 20
EXAMPLE = 64  # pixels; the size of a network's export does not matter
SIDE = 256  # pixels; that of the kernel estimator does


class Regression(nn.Module):
    """A network from images to images, both `(B, 3, H, W)` in [0, 1], sides multiples of `multiple`.

    AdaRevD runs all its sub-decoders on the whole image, without tiles and early exits.
    """

    def __init__(self, restorer: NetworkRestorer):
        super().__init__()
        self.network, self.lowest = restorer.network, restorer.lowest
        self.multiple = getattr(restorer.network, "multiple", 1)

    def forward(self, images: Tensor) -> Tensor:
        span = 1 - self.lowest
        pixels = images * span + self.lowest
        deepest = hasattr(self.network, "every_depth")
        restored = self.network.every_depth(pixels)[-1] if deepest else self.network(pixels)
        return ((restored - self.lowest) / span).clamp(0, 1)


class KernelEstimator(nn.Module):
    """BD-Diff's eyes without the search (`fast=True`): images `(B, 3, H, W)` in [0, 1] to kernels `(B, 33, 33)`."""

    def __init__(self, pipeline):
        super().__init__()
        self.image_encoder, self.blur_qformer = pipeline.image_encoder, pipeline.blur_qformer
        self.blur_decoder = pipeline.blur_decoder

    def forward(self, images: Tensor) -> Tensor:
        features = self.image_encoder(images * 2 - 1, read=("blur",))
        return self.blur_decoder(self.blur_qformer(features.blur), features.maps)


def export(restorer: Restorer, path: Path, side: int = SIDE) -> str:
    """Write a system's ONNX file, and say what it takes and gives.

    A regression network takes any batch and size (sides multiples of its step). Of BD-Diff the kernel estimator is
    written, for single images of `side` x `side` pixels: its windows are cut for one size. Raises `ValueError` for a
    BD-Diff without a blur decoder, and where ONNX is not installed.
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError:
        raise ValueError("exporting needs ONNX; install it: pip install 'bd-diff[export]'") from None
    if isinstance(restorer, PipelineRestorer):
        if restorer.pipeline.blur_decoder is None:
            raise ValueError("this BD-Diff has no blur_decoder, so it has no kernel estimator to export")
        module, size, output, free = KernelEstimator(restorer.pipeline), side, "kernels", None
        told = f"images (1, 3, {side}, {side}) in [0, 1] to kernels (1, 33, 33)"
    else:
        module, output = Regression(restorer), "restored"
        size = EXAMPLE + -EXAMPLE % module.multiple
        free = ({0: "batch", 2: "height", 3: "width"},)
        told = f"images (B, 3, H, W) in [0, 1] to the same, H and W multiples of {module.multiple}"
    device = next(module.parameters()).device
    # Sides that differ, and two images: what is equal or 1 would be taken for fixed.
    shape = (1, 3, size, size) if free is None else (2, 3, size, 2 * size)
    example = torch.rand(shape, device=device)
    program = torch.onnx.export(
        module.eval(),
        (example,),
        input_names=["images"],
        output_names=[output],
        dynamic_shapes=free,
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    with replacing(path) as part:
        program.save(part, include_initializers=True, external_data=False)
    return told
