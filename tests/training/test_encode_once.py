"""What a training step looks at several times is encoded once, to the same latents."""

import torch
from bd_diff_toys.stable_diffusion import toy_vae

from bd_diff.models.conditioning import to_latents
from bd_diff.models.refined_vae import RefinedVAE
from bd_diff.training.encode_once import EncodeOnce


def counting(vae):
    vae.encoded, encode = 0, vae.encode

    def counted(pixels):
        vae.encoded += len(pixels)
        return encode(pixels)

    vae.encode = counted
    return vae


def test_images_are_encoded_once_and_known_again_by_their_pixels():
    torch.manual_seed(0)
    vae = counting(toy_vae().eval())
    images = torch.rand(3, 3, 32, 32) * 2 - 1
    expected = to_latents(vae, images)
    vae.encoded, once = 0, EncodeOnce(vae)
    assert torch.equal(to_latents(once, images), expected) and vae.encoded == 3
    again = to_latents(once, torch.cat([images[1:].clone(), images.flip(-1)[:1], images[1:2]]))
    assert vae.encoded == 4  # the mirrored one, whose pixels have the same sum, is new
    assert torch.equal(again[[0, 1, 3]], expected[[1, 2, 1]]) and not torch.equal(again[2], expected[0])


def test_all_else_is_the_vaes_own():
    refined = RefinedVAE.around(toy_vae())
    once = EncodeOnce(refined)
    assert once.config is refined.config and once.refine == refined.refine and once.decode == refined.decode
