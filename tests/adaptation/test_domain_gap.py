"""The gap of a blur domain: small at home, larger the farther away, and said in words."""

import json

import pytest
import torch
from bd_diff_toys import ROOT
from safetensors.torch import load_file, save_file

from bd_diff.adaptation import domain_gap, lens
from bd_diff.adaptation.domain_gap import REFERENCE, read_reference
from bd_diff.adaptation.lens import Lens
from bd_diff.blur.camera import RandomCamera
from bd_diff.blur.kernels import blur, gaussian, line, shape_of
from bd_diff.commands.options import load_pipeline
from bd_diff.data.images import save_image, to_image
from bd_diff.data.procedural import procedural_image


@pytest.fixture(scope="module")
def pipeline():
    return load_pipeline(None).pipeline


@pytest.fixture(scope="module")
def sharp():
    return [procedural_image(224, torch.Generator().manual_seed(seed), "leaves") for seed in range(6)]


@pytest.fixture(scope="module")
def reference(pipeline, sharp):
    return domain_gap.as_reference(domain_gap.reference_readings(pipeline, sharp))


@pytest.fixture(scope="module")
def readings(pipeline, sharp):
    """Of 32 other photographs with blur and noise like those of the reference."""
    return domain_gap.reference_readings(pipeline, sharp, 32, seed=7)


def first(count, readings):
    return {name: values[:count] for name, values in readings.items()}


def test_domains_of_growing_distance_are_ranked(pipeline, sharp, reference, readings):
    def shaken(camera=domain_gap.CAMERA):
        return domain_gap.reference_readings(pipeline, sharp, 32, {"shake": 1.0}, camera, seed=7)

    several = (readings, shaken(), shaken(RandomCamera(24 / 255)))
    home, near, far = (domain_gap.total_gap(domain_gap.gaps(one, reference)) for one in several)
    assert home < near < far and home < domain_gap.NEAR and far > domain_gap.FAR


def test_a_kernel_is_described_by_its_size_and_direction():
    size, across, slant = shape_of(gaussian(torch.tensor([2.0]))[0])
    assert size == pytest.approx(2 * 2**0.5, rel=0.01) and abs(across) < 1e-4 and abs(slant) < 1e-4
    level, rising = line(torch.tensor([15.0, 15.0]), torch.tensor([0.0, -torch.pi / 4]))
    assert shape_of(level)[1] > 0.9 and abs(shape_of(level)[2]) < 1e-3
    assert shape_of(rising)[2] > 0.9  # rows count downwards


def test_words_follow_the_figures(pipeline, sharp, reference, readings):
    assert "like what the model was trained on; adapting will change little" in domain_gap.verdict(readings, reference)
    nothing = domain_gap.read_photographs_blur(pipeline, sharp)
    assert "hardly any blur" in domain_gap.verdict(nothing, reference)
    assert "3 photographs are few" in domain_gap.verdict(first(3, readings), reference)


def test_blur_beyond_the_model_is_told(reference, readings):
    home = first(12, readings)
    assert "far as" not in domain_gap.verdict(home, reference)
    wide = home | {"kernels": line(torch.full((12,), 31.0), torch.linspace(0, 0.1, 12))}
    assert "In 12 of 12 photographs blur reaches" in domain_gap.verdict(wide, reference)


def test_what_a_lens_tells_beyond_the_readings_is_what_adapting_gains(reference, readings):
    home = first(12, readings)
    alike = home | {"kernels": gaussian(torch.full((12,), 2.0))}
    told = [Lens(kernel, 0.001, 12) for kernel in (gaussian(torch.tensor([2.0])), line(*torch.tensor([[9.0], [0]])))]
    known, other = (domain_gap.verdict(alike, reference, one) for one in told)
    assert "as by one lens" in known and "about the kernel that the model reads in each without the search" in known
    assert "another kernel than the model reads in each: adapting will likely gain" in other
    assert domain_gap.misread(told[0], alike) < domain_gap.MISREAD < domain_gap.misread(told[1], alike)
    differing = Lens(told[1].kernel, 0.1, 12)
    far = alike | {"noise": home["noise"] + 30}
    assert "differs from photograph to photograph" in domain_gap.verdict(far, reference, differing)
    assert domain_gap.misread(differing, alike) == domain_gap.misread(None, alike) == 0


def test_photographs_of_one_lens_are_found_and_few_or_sharp_ones_are_not_asked(pipeline, sharp, monkeypatch):
    monkeypatch.setattr(lens, "CORRECTIONS", 0)  # whether there is one lens is told by readings alone
    photographs = [blur(one[None], gaussian(torch.tensor([1.8]))) for one in sharp]
    readings = domain_gap.read_photographs_blur(pipeline, (one[0] for one in photographs))
    assert domain_gap.lens_among(readings, photographs, sharp).why_not is None
    assert domain_gap.lens_among(readings, photographs[:5], sharp) is None
    assert domain_gap.lens_among(readings | {"size": torch.full((6,), 0.3)}, photographs, sharp) is None


def test_the_command_makes_a_reference_and_judges_by_it(tiny_pipeline_folder, tmp_path, monkeypatch, capsys):
    import shutil

    from bd_diff.commands.domain import domain

    model = shutil.copytree(tiny_pipeline_folder, tmp_path / "model")
    for index in range(3):
        image = procedural_image(96, torch.Generator().manual_seed(index))
        save_image(to_image(image), tmp_path / f"photographs/{index}.png")
    folder = tmp_path / "photographs"
    with pytest.raises(ValueError, match="has no blur_statistics.safetensors; make it with"):
        domain([folder], str(model), limit=8)
    domain([folder], str(model), reference=folder, limit=8, out=tmp_path / "figures.json")
    (figures,) = json.loads((tmp_path / "figures.json").read_text()).values()
    assert figures["photographs"] == 3 and set(figures["gaps"]) == set(domain_gap.STATISTICS)
    assert figures["verdict"] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda readings: readings | {"size": readings["size"] * float("nan")}, "its size holds NaN"),
        (lambda readings: readings | {"noise": readings["noise"].int()}, "it has no noise, a list of numbers"),
        (lambda readings: {name: values for name, values in readings.items() if name != "slant"}, "it has no slant"),
        (lambda readings: readings | {"tokens_mean": torch.zeros(0)}, "its tokens_mean holds NaN or nothing"),
    ],
)
def test_damaged_reference_statistics_are_refused_with_a_reason(tmp_path, damage, told):
    readings = load_file(ROOT / "assets/bd-diff-tiny" / REFERENCE)
    save_file(readings, tmp_path / REFERENCE)
    assert read_reference(tmp_path).keys() == readings.keys()
    save_file(damage(readings), tmp_path / REFERENCE)
    with pytest.raises(ValueError, match=f"{REFERENCE} is damaged: {told}"):
        read_reference(tmp_path)
    (tmp_path / REFERENCE).write_bytes(b"nothing")
    with pytest.raises(ValueError, match=f"{REFERENCE} is damaged"):
        read_reference(tmp_path)
