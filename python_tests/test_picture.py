"""Pictures: what is in a file, a Pillow image or an array reaches model, plot and page alike."""

import base64
import io
import os
import re
import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps
from transformers import CLIPImageProcessor, LlavaImageProcessor

from mi_pruner_cuda import Selection, plot, write_html
from mi_pruner_cuda.critic.prompts import model_inputs
from mi_pruner_cuda.panels import drawings
from mi_pruner_cuda.picture import to_picture
from mi_pruner_cuda.visible import visible_part

GREY = np.tile(np.arange(256, dtype=np.uint8), (4, 1))
ORIENTATION = 0x0112
EIGHT_BITS = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"]
DEEP = ["I", "F", "I;16", "I;16B", "I;16L", "I;16N"]
# A processor that changes nothing: what it returns is what it read.
READER = CLIPImageProcessor(
    do_resize=False, do_center_crop=False, do_rescale=False, do_normalize=False
)


def colours(height=6, width=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def pixels(given, **options):
    """int (H, W, 3) of to_picture."""
    picture = to_picture(given, **options)
    assert picture.mode == "RGB" and picture.info == {}
    return np.asarray(picture).astype(int)


def read_by_a_processor(image):
    return READER(image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)


def kept(h=1, w=1):
    n = h * w
    return Selection(np.array([0]), np.linspace(1, 0, n), 1, "pruned")


def drawn(image, **options):
    """What plot and write_html have in their panel."""
    (drawing,) = drawings(image, kept(), grid=(1, 1), **options)
    return drawing.panels[0].pixels


def in_mode(mode, seed=0):
    """A Pillow image of colours, half of it transparent where the mode has that."""
    rgba = np.dstack([colours(seed=seed), np.full((6, 8), 255)]).astype(np.uint8)
    rgba[:, :4, 3] = np.random.default_rng(seed).integers(0, 256, (6, 4))
    # Pillow does not convert to every mode at once.
    between = {"RGBA": "RGBA", "LA": "LA", "PA": "LA"}.get(mode, "RGB")
    return Image.fromarray(rgba).convert(between).convert(mode)


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def opened(image, kind, **options):
    return Image.open(io.BytesIO(encoded(image, kind, **options)))


# ---- depth ----


def tiff(bits, data, width, height, *, white_is_zero=False, kind=1, order="<"):
    """An uncompressed grey TIFF. kind: 1 unsigned, 2 signed, 3 floats."""
    tags = [
        (256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, not white_is_zero),
        (273, 4, 8), (277, 3, 1), (278, 4, height), (279, 4, len(data)), (339, 3, kind),
    ]  # fmt: skip
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8 + len(data))
    entries = b"".join(
        struct.pack(order + "HHI", tag, form, 1)
        + (struct.pack(order + "HH", value, 0) if form == 3 else struct.pack(order + "I", value))
        for tag, form, value in tags
    )
    return head + data + struct.pack(order + "H", len(tags)) + entries + bytes(4)


def twelve_bits(values):
    pairs = values.reshape(-1, 2).tolist()
    return b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in pairs)


def saved(kind, **options):
    return lambda values: encoded(Image.fromarray(values), kind, **options)


# Each makes a file of values in [0, 1].
FILES = {
    "png of 16 bits": lambda v: saved("PNG")(np.rint(v * 65535).astype(np.uint16)),
    "pgm of 16 bits": lambda v: saved("PPM")(np.rint(v * 65535).astype(np.uint16)),
    "jpeg 2000 of 16 bits": lambda v: saved("JPEG2000")(np.rint(v * 65535).astype(np.uint16)),
    "tiff of 16 bits": lambda v: saved("TIFF")(np.rint(v * 65535).astype(np.uint16)),
    "compressed tiff": lambda v: saved("TIFF", compression="tiff_lzw")(
        np.rint(v * 65535).astype(np.uint16)
    ),
    "tiff of 16 bits, big-endian": lambda v: tiff(
        16, np.rint(v * 65535).astype(">u2").tobytes(), *v.shape[::-1], order=">"
    ),
    "tiff of 16 bits where 0 is white": lambda v: tiff(
        16, np.rint(65535 - v * 65535).astype("<u2").tobytes(), *v.shape[::-1], white_is_zero=True
    ),
    "tiff of 12 bits": lambda v: tiff(
        12, twelve_bits(np.rint(v * 4095).astype(int)), *v.shape[::-1]
    ),
    "tiff of floats": lambda v: saved("TIFF")(v.astype(np.float32)),
    "tiff of floats where 0 is white": lambda v: tiff(
        32, (1 - v).astype("<f4").tobytes(), *v.shape[::-1], white_is_zero=True, kind=3
    ),
    "pfm": lambda v: saved("PPM")(v.astype(np.float32)),
    "png of 8 bits": lambda v: saved("PNG")(np.rint(v * 255).astype(np.uint8)),
}


@pytest.mark.parametrize("name", FILES)
@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), brightest=st.sampled_from([1.0, 0.5, 0.01]))
def test_files_of_any_depth_are_scaled(tmp_path_factory, name, seed, brightest):
    values = np.random.default_rng(seed).random((3, 16)) * brightest
    path = tmp_path_factory.mktemp("deep") / "a.file"
    path.write_bytes(FILES[name](values))
    found = pixels(path)
    assert np.abs(found - 255 * values[..., None]).max() <= 1
    assert np.array_equal(found, pixels(path, as_stored=True))
    assert np.array_equal(found, drawn(path))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_colours_of_16_bits(tmp_path, kind):
    """Pillow itself makes 8 bits of them. These files are put together by hand."""
    values = np.random.default_rng(0).integers(0, 65536, (4, 5, 3)).astype(np.uint16)
    path = tmp_path / "a.file"
    if kind == "PNG":
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
        chunks = (
            (b"IHDR", struct.pack(">IIBBBBB", 5, 4, 16, 2, 0, 0, 0)),
            (b"IDAT", zlib.compress(rows)),
            (b"IEND", b""),
        )
        path.write_bytes(
            b"\x89PNG\r\n\x1a\n"
            + b"".join(
                struct.pack(">I", len(data)) + name + data
                + struct.pack(">I", zlib.crc32(name + data))
                for name, data in chunks
            )
        )  # fmt: skip
    else:
        data, bits = values.astype("<u2").tobytes(), struct.pack("<HHH", 16, 16, 16)
        tags = [
            (256, 4, 1, 5), (257, 4, 1, 4), (258, 3, 3, 8 + len(data)), (259, 3, 1, 1),
            (262, 3, 1, 2), (273, 4, 1, 8), (277, 3, 1, 3), (278, 4, 1, 4), (279, 4, 1, len(data)),
        ]  # fmt: skip
        path.write_bytes(
            b"II*\0" + struct.pack("<I", 8 + len(data) + 6) + data + bits
            + struct.pack("<H", len(tags))
            + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
        )  # fmt: skip
    assert np.abs(pixels(path) - values / 257).max() <= 1


def fits(values):
    """Integers of 16 bits with a sign, which Pillow calls I;16."""
    cards = ("SIMPLE  = T", "BITPIX  = 16", "NAXIS   = 2", "NAXIS1  = 256", "NAXIS2  = 4", "END")
    head = b"".join(card.encode().ljust(80) for card in cards)
    return head.ljust(2880) + values.astype(">i2").tobytes().ljust(2880, b"\0")


REFUSED = {
    "integers of 32 bits": saved("TIFF")(GREY.astype(np.int32) * 257),
    "16 bits with a sign": tiff(16, GREY.astype("<i2").tobytes(), 256, 4, kind=2),
    "floats up to 255": saved("TIFF")(GREY.astype(np.float32)),
    "floats below 0": saved("TIFF")(GREY.astype(np.float32) / 255 - 0.1),
    "floats with NaN": saved("TIFF")(np.full((2, 2), np.nan, np.float32)),
    "floats with infinity": saved("TIFF")(np.full((2, 2), np.inf, np.float32)),
    "a format without a rule": fits(GREY),
}


@pytest.mark.parametrize("name", REFUSED)
def test_files_that_do_not_say_what_is_white_are_refused(tmp_path, name):
    path = tmp_path / "a.file"
    path.write_bytes(REFUSED[name])
    with pytest.raises(ValueError, match=r"^image: .*a\.file .*allowed are .*\[0, 1\]"):
        to_picture(path)


@pytest.mark.parametrize("mode", DEEP)
def test_deep_pillow_images_are_refused(mode):
    """Processors clip them: nearly all is white. to_picture of the array is what both can take."""
    image = Image.new(mode, (3, 2))
    with pytest.raises(ValueError, match=f"mode '{mode}', which processors clip"):
        to_picture(image)
    with pytest.raises(ValueError, match=f"mode '{mode}'"):
        plot(image, kept(), grid=(1, 1))


@pytest.mark.parametrize("mode", ["La", "RGBa"])
def test_multiplied_transparency_is_refused(mode):
    """Processors fail on the one, and lay the other on black."""
    with pytest.raises(ValueError, match=f"mode '{mode}'.* convert it to '{mode.upper()}'"):
        plot(Image.new(mode, (3, 2)), kept(), grid=(1, 1))


def test_what_the_refusal_proposes():
    image = Image.fromarray(GREY.astype(np.uint16) * 257)
    picture = to_picture(np.asarray(image))
    assert np.array_equal(np.asarray(picture)[..., 0], GREY)
    assert np.array_equal(drawn(picture), read_by_a_processor(picture))


# ---- modes and transparency ----


@pytest.mark.parametrize("mode", EIGHT_BITS)
@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), orientation=st.integers(0, 9))
def test_pillow_images_are_drawn_as_processors_read_them(mode, seed, orientation):
    """Whatever their EXIF says."""
    image = in_mode(mode, seed)
    image.getexif()[ORIENTATION] = orientation
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = drawn(image)
    assert np.abs(found.astype(int) - read_by_a_processor(image)).max() <= 1


@pytest.mark.parametrize("mode", EIGHT_BITS)
def test_the_plot_and_the_page_of_a_pillow_image(tmp_path, mode):
    image = in_mode(mode)
    image.getexif()[ORIENTATION] = 6
    expected = pixels(image)
    figure = plot(image, kept(2, 2), grid=(2, 2))
    assert np.array_equal(figure.axes[0].images[0].get_array(), expected)
    write_html(image, kept(2, 2), tmp_path / "a.html", grid=(2, 2))
    uri = re.search(r"data:image/png;base64,([^\"]+)", (tmp_path / "a.html").read_text())[1]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(uri)))), expected)


def on_white(rgb, alpha):
    share = np.asarray(alpha, float)[..., None] / 255
    return share * rgb + (1 - share) * 255


def keyed(mode):
    """(image, its colour, where it is transparent): one colour of it is."""
    grey = np.full((4, 4), 200, np.uint8)
    grey[:2] = 10
    where = grey == 10
    if mode == "RGB":
        return Image.fromarray(np.dstack([grey] * 3)), (10, 10, 10), where
    if mode == "I;16":
        return Image.fromarray(grey.astype(np.uint16) * 257), 2570, where
    if mode == "P":
        palette = Image.fromarray(grey).convert("P")
        return palette, palette.getpixel((0, 0)), where
    return Image.fromarray(grey), 10, where


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16", "P"])
def test_a_transparent_colour_is_white(tmp_path, mode):
    image, key, where = keyed(mode)
    image.save(tmp_path / "a.png", transparency=key)
    assert np.array_equal(pixels(tmp_path / "a.png")[..., 0], np.where(where, 255, 200))
    hidden = pixels(tmp_path / "a.png", as_stored=True)[..., 0]
    assert np.array_equal(hidden, np.where(where, 10, 200))


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(["PNG", "WEBP", "TIFF"]))
def test_transparency_lies_on_white(tmp_path_factory, seed, kind):
    rgb = colours(seed=seed)
    alpha = np.random.default_rng(seed).integers(0, 256, (6, 8), np.uint8)
    rgba = np.dstack([rgb, alpha])
    path = tmp_path_factory.mktemp("alpha") / "a.file"
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    path.write_bytes(encoded(Image.fromarray(rgba), kind, **options))
    expected = on_white(rgb, alpha)
    for source in (path, Image.open(path), rgba, torch.from_numpy(rgba), rgba / 255.0):
        assert np.abs(pixels(source) - expected).max() <= 1
    assert np.array_equal(pixels(path, as_stored=True), rgb)
    assert np.array_equal(drawn(path), pixels(path))


def test_transparency_of_a_palette(tmp_path):
    """Bytes, one per colour: Pillow warns where they are dropped."""
    image = Image.fromarray(np.arange(4, dtype=np.uint8).reshape(2, 2), "P")
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(tmp_path / "a.png", transparency=bytes([0, 255, 128, 255]))
    expected = [[255, 255, 255], [255, 0, 0], [127, 255, 127], [0, 0, 255]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for source in (tmp_path / "a.png", Image.open(tmp_path / "a.png")):
            assert np.abs(pixels(source).reshape(4, 3) - expected).max() <= 1
        hidden = pixels(tmp_path / "a.png", as_stored=True)
    assert hidden.reshape(4, 3).tolist() == [[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]]


def test_a_photograph_in_printing_colours(tmp_path):
    """Adobe's JPEG files hold the inverse of their inks."""
    image = Image.new("RGB", (16, 16), (200, 40, 90))
    image.convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    assert np.abs(pixels(tmp_path / "a.jpg") - [200, 40, 90]).max() <= 3


def test_the_first_frame_of_a_file_and_the_frame_where_an_image_stands(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    for name in ("a.gif", "a.tif", "a.png", "a.webp"):
        options = {"lossless": True} if name == "a.webp" else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        assert pixels(tmp_path / name)[0, 0].tolist() == [255, 0, 0]
        with Image.open(tmp_path / name) as image:
            image.seek(2)
            assert pixels(image)[0, 0].tolist() == [0, 0, 255]


# ---- orientation ----


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(10))
def test_a_file_is_turned_and_a_pillow_image_is_not(tmp_path, kind, orientation):
    path = tmp_path / "a.file"
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image = Image.fromarray(colours().repeat(8, 0).repeat(8, 1))
    path.write_bytes(encoded(image, kind, exif=exif))
    with Image.open(path) as lying:
        upright = np.asarray(ImageOps.exif_transpose(lying).convert("RGB"))
        assert np.array_equal(pixels(path), upright)
        assert np.array_equal(drawn(path), upright)
        as_it_lies = read_by_a_processor(lying)
        assert np.array_equal(pixels(lying), as_it_lies)
        assert np.array_equal(drawn(lying), as_it_lies)
        assert np.array_equal(pixels(path, as_stored=True), as_it_lies)
    # Handed on or saved, it is not turned once more.
    to_picture(path).save(tmp_path / "b.png")
    assert np.array_equal(pixels(tmp_path / "b.png"), upright)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_deep_tiff_is_turned_once(tmp_path, orientation):
    """Pillow turns TIFFs itself."""
    values = np.arange(24, dtype=np.uint16).reshape(4, 6) * 2570
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(values).save(tmp_path / "a.tif", exif=exif)
    Image.fromarray((values // 257).astype(np.uint8)).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(pixels(tmp_path / "a.tif"), pixels(tmp_path / "a.png"))


@settings(deadline=None, max_examples=60)
@given(exif=st.binary(max_size=60))
def test_damaged_exif_says_nothing(tmp_path_factory, exif):
    path = tmp_path_factory.mktemp("exif") / "a.png"
    image = Image.fromarray(colours(4, 4))
    path.write_bytes(encoded(image, "PNG", exif=b"Exif\0\0II*\0\x08\0\0\0" + exif))
    found = pixels(path)
    assert np.array_equal(np.sort(found, None), np.sort(np.asarray(image), None))


# ---- sizes and damage ----


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (3, 50), (50, 3), (4, 2)])
def test_small_and_narrow_pictures(tmp_path, size):
    image = Image.fromarray(colours(*size))
    image.save(tmp_path / "a.png")
    for source in (image, tmp_path / "a.png", np.asarray(image)):
        assert np.array_equal(drawn(source), np.asarray(image))
    plot(image, kept(2, 2), tmp_path / "b.png", grid=(2, 2))


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0)])
def test_no_pixels(size):
    with pytest.raises(ValueError, match=f"image: got {size[0]} x {size[1]} pixels"):
        to_picture(Image.new("RGB", size))


def test_large_pictures_are_refused_in_a_sentence_and_others_are_silent(tmp_path, monkeypatch):
    Image.new("1", (20, 20)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)  # Pillow warns here, and fails from 600 on
    with warnings.catch_warnings(record=True) as said:
        warnings.resetwarnings()
        assert pixels(tmp_path / "a.png").shape == (20, 20, 3)
    assert said == []
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with pytest.raises(ValueError, match=r"a\.png is too large: .* limit of 300 pixels"):
            to_picture(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"a\.png is too large: .*400 pixels.* limit of 200 "):
        to_picture(tmp_path / "a.png")


def test_too_little_memory_is_a_sentence(tmp_path, monkeypatch):
    Image.new("L", (20, 20)).save(tmp_path / "a.png")

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(ValueError, match=r"a\.png is too large for this machine's memory"):
        to_picture(tmp_path / "a.png")


@settings(deadline=None, max_examples=150)
@given(
    kind=st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM", "JPEG2000", "TGA"]),
    place=st.floats(0, 1, exclude_max=True),
    byte=st.integers(0, 255),
    end=st.floats(0, 1),
)
def test_damaged_files_are_refused_in_a_sentence(tmp_path_factory, kind, place, byte, end):
    path = tmp_path_factory.mktemp("damaged") / "a.file"
    data = bytearray(encoded(Image.fromarray(colours(9, 9)), kind))
    data[int(place * len(data))] = byte
    path.write_bytes(data[: int(end * len(data))])
    try:
        to_picture(path)
    except ValueError as refused:
        assert re.match(r"image: .*a\.file (is|has) ", str(refused))


def test_a_pillow_image_that_cannot_be_loaded():
    data = encoded(Image.fromarray(colours(99, 99)), "PNG")
    closed = Image.open(io.BytesIO(data))
    closed.close()
    for source in (Image.open(io.BytesIO(data[:-500])), closed):
        with pytest.raises(ValueError, match="image: Pillow cannot read this image"):
            plot(source, kept(), grid=(1, 1))


def test_files_that_are_not_there_or_not_to_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match="image: there is no file"):
        to_picture(tmp_path / "none.png")
    with pytest.raises(IsADirectoryError, match=r"image: .* cannot be read"):
        to_picture(tmp_path)
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"empty\.png is not a picture"):
        to_picture(tmp_path / "empty.png")


def test_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    data = encoded(Image.fromarray(colours()), "PNG")
    write = (tmp_path / "pipe").write_bytes
    writer = threading.Thread(target=write, args=(data,), daemon=True)
    writer.start()
    assert np.array_equal(pixels(tmp_path / "pipe"), colours())
    writer.join()


# ---- arrays ----

ARRAYS = {
    "uint16": lambda v: np.rint(v * 65535).astype(np.uint16),
    "uint16, big-endian": lambda v: np.rint(v * 65535).astype(">u2"),
    "uint8": lambda v: np.rint(v * 255).astype(np.uint8),
    "float16": lambda v: v.astype(np.float16),
    "float32, big-endian": lambda v: v.astype(">f4"),
    "float64": lambda v: v,
    "long double": lambda v: v.astype(np.longdouble),
    "nothing masked": lambda v: np.ma.masked_array(v, np.zeros(v.shape, bool)),
    "transposed": lambda v: np.ascontiguousarray(v.swapaxes(0, 1)).swapaxes(0, 1),
    "backwards": lambda v: np.ascontiguousarray(v[::-1])[::-1],
    "tensor": lambda v: torch.from_numpy(v),
    "tensor of uint16": lambda v: torch.from_numpy(np.rint(v * 65535).astype(np.uint16)),
    "tensor with gradients": lambda v: torch.from_numpy(v).requires_grad_(),
}


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3), (1, 1), (1, 1, 3)])
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**32 - 1), brightest=st.sampled_from([1.0, 0.003]))
def test_arrays_are_scaled_by_their_type(name, shape, seed, brightest):
    values = np.random.default_rng(seed).random(shape) * brightest
    expected = 255 * (values if len(shape) == 3 else values[..., None])
    array = ARRAYS[name](values)
    assert np.abs(pixels(array) - expected).max() <= 1
    assert np.array_equal(pixels(array), drawn(array))


def test_arrays_of_bools_and_of_bfloat16():
    bits = np.array([[True, False], [False, True]])
    for source in (bits, torch.from_numpy(bits)):
        assert pixels(source)[..., 1].tolist() == [[255, 0], [0, 255]]
    assert np.abs(pixels(torch.full((2, 2), 0.5, dtype=torch.bfloat16)) - 127.5).max() <= 1


@pytest.mark.parametrize(
    ("array", "kind", "message"),
    [
        (np.full((2, 2), np.inf), ValueError, r"outside \[0, 1\]"),
        (np.full((2, 2), np.nan), ValueError, r"outside \[0, 1\]"),
        (np.full((2, 2), -0.1), ValueError, r"outside \[0, 1\]"),
        (np.ma.masked_array([[1, 2]], [[0, 1]], np.uint8), ValueError, "masked pixels"),
        (np.ma.masked_greater(np.ones((2, 2, 3)), 0.5), ValueError, "masked pixels"),
        (np.zeros((2, 2), np.int16), TypeError, "array of int16"),
        (np.zeros((2, 2), np.uint32), TypeError, "array of uint32"),
        (np.zeros((2, 2), complex), TypeError, "array of complex128"),
        (np.zeros((2, 2), object), TypeError, "array of object"),
        (np.zeros((2, 2), "U1"), TypeError, "array of <U1"),
        (np.zeros((2, 2, 2)), ValueError, r"array of \(2, 2, 2\)"),
        (np.zeros((0, 2)), ValueError, r"array of \(0, 2\)"),
    ],
)
def test_arrays_that_are_refused(array, kind, message):
    with pytest.raises(kind, match=f"image: got .*{message}"):
        to_picture(array)
    with pytest.raises(kind, match=f"image: got .*{message}"):
        plot(array, kept(), grid=(1, 1))


# ---- what calibrate hands over ----


class Taking:
    """A processor that keeps the pictures it is given."""

    def __call__(self, images, text, return_tensors):
        self.images = images
        return {}


def test_calibrate_gives_the_processor_the_same_pictures(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    deep = np.arange(24, dtype=np.uint16).reshape(4, 6) * 2570
    Image.fromarray(deep).save(tmp_path / "a.png", exif=exif)
    lying = opened(Image.fromarray(colours()), "PNG", exif=exif)
    for source in (tmp_path / "a.png", lying, deep):
        processor = Taking()
        model_inputs((source, "what is it?"), processor, None)
        (image,) = processor.images
        assert np.array_equal(image, pixels(source)) and np.array_equal(image, drawn(source))
    assert to_picture(tmp_path / "a.png").size == (4, 6)


# ---- what processors pad ----


@pytest.mark.parametrize("size", [(40, 24), (24, 40), (32, 32), (1, 30)])
def test_a_picture_that_is_padded_to_a_square(size):
    """LLaVA's processors do so with do_pad: the tokens cover the square."""
    processor = LlavaImageProcessor(
        do_pad=True, do_resize=False, do_rescale=False, do_normalize=False,
        crop_size={"height": max(size), "width": max(size)},
    )  # fmt: skip
    image = Image.fromarray(colours(*size))
    seen = processor(image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
    assert np.array_equal(np.asarray(visible_part(image, processor)), seen)
    assert np.array_equal(drawn(image, processor=processor), seen)


@pytest.mark.parametrize("size", [(40, 24), (20, 50), (8, 9)])
def test_a_crop_that_is_wider_than_the_picture(size):
    """The rest is black."""
    crop = {"height": 32, "width": 32}
    processor = CLIPImageProcessor(
        do_resize=False, crop_size=crop, do_rescale=False, do_normalize=False
    )
    image = Image.fromarray(colours(*size))
    seen = processor(image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
    assert drawn(image, processor=processor).shape == (32, 32, 3)
    shifted = [np.roll(seen, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    differences = [np.abs(drawn(image, processor=processor) - s.astype(int)).max() for s in shifted]
    assert min(differences) == 0  # odd margins are rounded either way
