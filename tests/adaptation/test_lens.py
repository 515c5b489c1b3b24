"""All photographs of one lens tell its kernel together, which none of them tells alone; others are told from them."""

import pytest
import torch
from bd_diff_toys import ROOT

from bd_diff.adaptation.lens import Lens, correction, find_lens, lights_of, shared_kernel
from bd_diff.blur.camera import Camera
from bd_diff.blur.kernels import centre, delta, disc, gaussian, grid, line, normalize
from bd_diff.data.images import list_images, read_image, to_tensor
from bd_diff.reading.confidence import distances

NAMES = ("dog", "city", "guitar", "flowers", "girl", "mc2", "night", "reflect")


def taken(kernels):
    """Photographs `(1, 3, 192, 192)` of different scenes, one of each kernel `(k, k)`."""
    found = []
    for index, (name, kernel) in enumerate(zip(NAMES, kernels, strict=False)):
        image = to_tensor(read_image(ROOT / f"assets/sharp/gb82_{name}.webp"))[None, :, 100:324, 100:324]
        one = Camera("srgb", read=2e-3).capture(image, kernel[None], torch.Generator().manual_seed(index))
        found.append(one[..., 16:-16, 16:-16].clamp(0, 1))
    return found


@pytest.fixture(scope="module")
def sharp():
    """Photographs of other scenes than those that are taken."""
    paths = [path for path in list_images(ROOT / "assets/sharp") if path.stem.split("_")[1] not in NAMES]
    return [to_tensor(read_image(path))[:, 100:324, 100:324] for path in paths]


@pytest.fixture(scope="module")
def coma():
    """Discs that grow as they move, the first the brightest (coma): of no family of blur."""
    rows, columns = grid(33)
    discs = [
        (4 - step) * (0.8 * step + 1.5 - torch.hypot(rows + step, columns - 1.6 * step)).clamp(0, 1) / (step + 1)
        for step in range(4)
    ]
    return centre(normalize(sum(discs))[None])


def test_photographs_of_one_lens_tell_its_kernel_together(coma, sharp):
    read = gaussian(torch.full((8,), 2.2))
    found = find_lens(taken(coma.expand(8, -1, -1)), read, sharp)
    assert float(distances(coma, found.kernel)) < 0.6 * float(distances(coma, read[:1]))
    assert found.why_not is None and found.photographs == 8
    assert float(found.kernel.sum()) == pytest.approx(1) and found.kernel.min() >= 0


def test_a_blur_that_is_read_rightly_is_spoilt_less_than_by_the_edges_alone(sharp):
    read = disc(torch.full((8,), 3.5))
    photographs = taken(read)
    by_edges_alone = distances(read[:1], shared_kernel(lights_of(photographs), read[:1]))
    assert distances(read[:1], find_lens(photographs, read, sharp).kernel) < 0.7 * by_edges_alone


def test_a_correction_is_shortened_by_its_error_and_none_where_that_is_larger():
    start = gaussian(torch.tensor([2.5]))
    wider = 0.2 * (gaussian(torch.tensor([4.0])) - start)
    assert torch.equal(correction(start, wider, (wider, wider)), wider)
    length = (correction(start, wider, (1.3 * wider, 0.7 * wider)) / wider).mean()
    assert 0.8 < float(length) < 0.98
    assert not correction(start, 0.5 * wider, (1.5 * wider, -0.5 * wider)).any()


def test_shakes_of_their_own_are_no_lens(sharp):
    kernels = line(torch.full((6,), 13.0), torch.linspace(0, 2.6, 6))
    found = find_lens(taken(kernels), kernels, sharp)
    assert "do not share one blur: what is read in them differs" in found.why_not


def test_what_is_read_differing_is_no_lens_and_the_report_says_so():
    assert "do not share one blur" in Lens(delta(1), unlike=0.1, photographs=8).figures()["why_not"]
    assert Lens(delta(1), unlike=0.001, photographs=8).why_not is None
