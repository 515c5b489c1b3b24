"""Blur domains: stored with every image, and unlike each other."""

import json
from dataclasses import replace

import pytest
import torch

from bd_diff.blur.camera import Camera
from bd_diff.blur.domains import DOMAINS, find_domain, photograph
from bd_diff.blur.synthesis import FAMILIES, Blur


def drawn(name, seed=0, severity=1.0):
    return find_domain(name).draw(torch.Generator().manual_seed(seed), severity)


@pytest.mark.parametrize("name", DOMAINS)
def test_a_photograph_is_made_again_from_what_is_stored_of_it(name):
    image = torch.rand(3, 60, 70, generator=torch.Generator().manual_seed(1))
    blur, camera = drawn(name)
    stored = json.loads(json.dumps({"blur": blur.parameters(), "camera": camera.parameters()}))
    first, again = (
        photograph(image, b, c, torch.Generator().manual_seed(9))
        for b, c in ((blur, camera), (Blur(**stored["blur"]), Camera(**stored["camera"])))
    )
    assert torch.equal(first, again) and first.shape == image.shape
    assert 0 <= first.min() and first.max() <= 1 and not torch.equal(first, image)


@pytest.mark.parametrize("name", DOMAINS)
def test_draws_stay_inside_the_domain(name):
    domain = DOMAINS[name]
    for seed in range(40):
        blur, camera = drawn(name, seed)
        family = FAMILIES[blur.family]
        assert blur.family in domain.families and family.easiest <= blur.parameter <= family.hardest
        assert blur.variation <= domain.variation and camera.curve == domain.curve
        assert domain.read[0] <= camera.read <= domain.read[1] and domain.jpeg[0] <= camera.jpeg <= domain.jpeg[1]
        assert blur.field()[:, :, 0].max() < 1e-4  # nothing is cut off at the window's edge


def test_no_target_shares_a_blur_family_with_the_source():
    for name, domain in DOMAINS.items():
        assert name == "source" or not set(domain.families) & set(DOMAINS["source"].families)


def test_steady_shake_is_rolling_shake_without_the_roll():
    for seed in range(5):
        (rolling, its_camera), (steady, camera) = drawn("rolling-shake", seed), drawn("steady-shake", seed)
        assert replace(rolling, variation=0) == steady and its_camera == camera and rolling.variation > 0.3


def test_severity_limits_the_blur():
    assert all(drawn("extreme", seed, severity=0.2)[0].parameter <= 3 + 0.2 * 26 for seed in range(20))


def test_an_unknown_domain_is_told_which_exist():
    with pytest.raises(ValueError, match="no blur domain 'target'; the domains are source, night-shake"):
        find_domain("target")
