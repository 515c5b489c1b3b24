"""What needs no GPU to be told of one: that nothing is made on another device than the photograph's."""

import torch
from bd_diff_toys import ROOT

from bd_diff import BDDiffPipeline
from bd_diff.blur.domains import find_domain, photograph
from bd_diff.blur.field import BlurField
from bd_diff.blur.kernels import blur, delta, line
from bd_diff.blur.synthesis import Blur
from bd_diff.data.images import read_image, to_tensor
from bd_diff.reading.blur_reading import BlurReading
from bd_diff.reading.moving_things import with_moving_things


def test_a_field_that_is_given_goes_to_the_device_of_the_photograph():
    moved = BlurField(torch.zeros(2, 33, 33), torch.zeros(2, 1, 2)).to("meta")
    assert moved.kernels.device.type == moved.shares.device.type == "meta"


def test_reading_blur_makes_its_tensors_on_the_device_of_the_photograph():
    sharp = to_tensor(read_image(ROOT / "assets/sharp/gb82_city.webp"))[:, :300, :400]
    generator = torch.Generator().manual_seed(0)
    _, camera = find_domain("rolling-shake").draw(generator)
    pixels = photograph(sharp, Blur("shake", 14.0, seed=3, variation=0.5), camera, generator)[None] * 2 - 1
    pipeline = BDDiffPipeline.from_pretrained()
    # Where no device is named, tensors are made on one that holds no values: they cannot meet those of the photograph.
    with torch.device("meta"):
        found = pipeline.read_fields(pixels, pipeline.read_at_scales(pixels))[1][0]
    assert isinstance(found, BlurField) and found.kernels.isfinite().all()  # every part of the reading ran
    moved = sharp[None, :, :288, :288] * 2 - 1
    moved[..., :144] = blur(moved, line(torch.tensor([13.0]), torch.tensor([0.2])))[..., :144]
    with torch.device("meta"):
        found = with_moving_things(pipeline, moved, BlurReading(delta(1, device="cpu")))[1]
    assert isinstance(found, BlurField) and found.shares.isfinite().all()
