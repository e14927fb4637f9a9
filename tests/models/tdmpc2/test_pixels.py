"""The shift augmentation and the convolutional encoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from worldflux.models.tdmpc2.layers import PixelDecoder, PixelEncoder, shift_images, shift_offsets


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 6), st.integers(0, 6))
def test_a_shift_is_a_crop_of_the_padded_image(x: int, y: int) -> None:
    images = torch.rand(2, 3, 64, 64) * 255
    padded = F.pad(images, (3, 3, 3, 3), mode="replicate")
    offsets = torch.tensor([float(x), float(y)]).expand(2, 1, 1, 2)
    shifted = shift_images(images, offsets)
    assert_close(shifted, padded[:, :, y : y + 64, x : x + 64], rtol=0, atol=3e-3)


def test_offsets_are_whole_pixels_of_either_axis() -> None:
    torch.manual_seed(0)
    offsets = shift_offsets(2000, torch.device("cpu"))
    assert offsets.shape == (2000, 1, 1, 2)
    for axis in (0, 1):
        assert sorted(offsets[..., axis].unique().tolist()) == [0, 1, 2, 3, 4, 5, 6]


@torch.no_grad()
def test_a_sequence_is_encoded_like_its_steps_one_by_one() -> None:
    torch.manual_seed(0)
    encoder = PixelEncoder((9, 64, 64), 4, 64, 8)
    obs = torch.randint(0, 256, (3, 2, 9, 64, 64), dtype=torch.uint8)
    torch.manual_seed(5)
    together = encoder(obs.flatten(0, 1)).unflatten(0, (3, 2))
    torch.manual_seed(5)
    apart = torch.stack([encoder(step) for step in obs])
    assert_close(together, apart, rtol=1e-5, atol=1e-6)
    assert_close(together.unflatten(-1, (-1, 8)).sum(-1), torch.ones(3, 2, 8))
    again = encoder(obs[0])
    assert not torch.equal(again, together[0])  # fresh shifts at every call, while acting too


def test_decoder_mirrors_the_encoder() -> None:
    decoder = PixelDecoder((3, 64, 64), 4, 24)
    assert decoder(torch.rand(5, 24)).shape == (5, 3, 64, 64)
