"""One picture: what is found wrong with it, and what it looks like as pixels."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from trainers.images.pictures import decode_picture, inspect_picture


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def decoded(data: bytes, channels: int = 3, edge: int = 64) -> torch.Tensor:
    return decode_picture(data, channels, edge, inspect_picture(data, edge, channels).needs_pillow)


RGB = Image.fromarray(np.arange(8 * 12 * 3, dtype=np.uint8).reshape(8, 12, 3))


def test_a_plain_png_keeps_every_pixel():
    finding = inspect_picture(encoded(RGB), 8, 3)
    assert (finding.problem, finding.conversion, finding.needs_pillow) == (None, None, False)
    assert torch.equal(decoded(encoded(RGB)), torch.from_numpy(np.array(RGB)).permute(2, 0, 1))


def test_zero_bytes_are_named():
    assert inspect_picture(b"", 8, 3).problem == "the picture is empty (0 bytes)"


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_truncated_picture_is_found(kind):
    data = encoded(RGB.resize((200, 200)), kind)
    assert "cannot be decoded" in str(inspect_picture(data[: len(data) // 2], 8, 3).problem)


def test_a_text_file_is_no_picture():
    assert inspect_picture(b"hello, world", 8, 3).problem == "cannot be decoded: it is in no picture format that Pillow knows"


def test_one_channel_becomes_three_equal_ones_and_is_said():
    data = encoded(RGB.convert("L"))
    assert inspect_picture(data, 8, 3).conversion == "have one channel and become RGB"
    pixels = decoded(data)
    assert pixels.shape == (3, 8, 12)
    assert torch.equal(pixels[0], pixels[1])
    assert torch.equal(pixels[0], torch.from_numpy(np.array(RGB.convert("L"))))


def test_colours_become_grey_where_the_network_sees_one_channel():
    assert inspect_picture(encoded(RGB), 8, 1).conversion == "have colours and become grey"
    assert decoded(encoded(RGB), channels=1).shape == (1, 8, 12)


def test_16_bit_pixels_are_scaled_not_cut_off():
    values = np.array([[0, 257, 65535]], dtype=np.uint16).repeat(4, 0)
    data = encoded(Image.fromarray(values))
    finding = inspect_picture(data, 4, 3)
    assert finding.conversion == "have 16 bits a pixel, scaled to 8"
    assert decoded(data)[0, 0].tolist() == [0, 1, 255]


def test_an_alpha_channel_is_dropped_and_said():
    data = encoded(RGB.convert("RGBA"))
    assert inspect_picture(data, 8, 3).conversion == "have an alpha channel, which is dropped"
    assert torch.equal(decoded(data), torch.from_numpy(np.array(RGB)).permute(2, 0, 1))


def test_cmyk_becomes_rgb_and_is_said():
    data = encoded(RGB.convert("CMYK"), "JPEG", quality=95)
    assert inspect_picture(data, 8, 3).conversion == "are in CMYK and become RGB"
    assert (decoded(data).float() - torch.from_numpy(np.array(RGB)).permute(2, 0, 1).float()).abs().mean() < 20


def test_floating_point_pixels_are_refused():
    data = encoded(Image.fromarray(np.zeros((4, 4), dtype=np.float32)), "TIFF")
    assert inspect_picture(data, 8, 3).problem == "32-bit pixels (mode F) have no known range"


def test_a_strip_that_cannot_be_scaled_is_refused():
    assert inspect_picture(encoded(Image.new("RGB", (2000, 1))), 448, 3).problem == "2000 x 1 pixels is too narrow to be scaled"


def test_a_huge_jpeg_is_decoded_at_a_fraction_of_its_size():
    data = encoded(Image.new("RGB", (1600, 1200)), "JPEG")
    finding = inspect_picture(data, 100, 3)
    assert finding.needs_pillow
    assert decode_picture(data, 3, 100, finding.needs_pillow).shape == (3, 150, 200)


def test_a_palette_with_transparency_is_read(recwarn):
    image = RGB.convert("P")
    data = encoded(image, transparency=bytes([0] * 10))
    assert decoded(data).shape == (3, 8, 12)
    assert not recwarn.list
