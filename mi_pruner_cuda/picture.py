"""The one place that makes a picture of a file, a Pillow image or an array: commands, calibrate,
plot and write_html all come here."""

import io
import os
import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

_TURN = Image.Transpose
_UPRIGHT = {  # what turns a picture of this EXIF orientation upright
    2: _TURN.FLIP_LEFT_RIGHT,
    3: _TURN.ROTATE_180,
    4: _TURN.FLIP_TOP_BOTTOM,
    5: _TURN.TRANSPOSE,
    6: _TURN.ROTATE_270,
    7: _TURN.TRANSVERSE,
    8: _TURN.ROTATE_90,
}
_TOO_LARGE = (Image.DecompressionBombError, Image.DecompressionBombWarning)
_PHOTOMETRIC, _BITS = 262, 258  # tags of TIFF


def to_picture(image, *, as_stored: bool = False) -> Image.Image:
    """An RGB picture of 8 bits, which is what processors are given and what plots show.

    - A file is what a viewer shows: turned upright as its EXIF says, transparency on white, 16 bits
      scaled to 8. Of several frames or pages it is the first. Colour profiles are not applied, as
      the processors of transformers do not apply them.
    - A Pillow image is what the processors of transformers read of it: its pixels as they lie, not
      turned, of the frame that it stands at. Transparency is laid on white, as transformers 5 does;
      older versions show the colours beneath. Where that matters, give what this function returns
      to the processor as well.
    - An array is scaled from the whole range of its dtype. Transparency is laid on white.

    Args:
        image: a file's path, a Pillow image, or an array or tensor of (H, W), (H, W, 3) or
            (H, W, 4): bool, uint8, uint16 or floats in [0, 1].
        as_stored: takes a file as llama.cpp does: its pixels as they lie, not turned, and
            transparency dropped, so that the colours beneath show. (Pillow itself turns TIFFs.)

    Returns:
        a new image, whose info is empty: nothing in it asks to be turned once more.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: the file cannot be read.
        ValueError: the file is no picture, is damaged or too large; a picture has no pixels; an
            array has another shape, range or masked pixels; or it is not known which number is
            white: in files of integers beyond 16 bits and of floats beyond [0, 1]. Also Pillow
            images that processors read wrongly: of more than 8 bits (they clip them, and nearly all
            becomes white or black) and in the modes La and RGBa.
        TypeError: something else.
    """
    if isinstance(image, (str, os.PathLike)):
        return _from_file(Path(image), as_stored)
    if isinstance(image, Image.Image):
        return _from_pillow(image, as_stored)
    if hasattr(image, "__array__"):
        return _rgb(_from_array(image), as_stored)
    raise TypeError(
        f"image: got {type(image).__name__}, allowed is a Pillow image, a path or an (H, W, 3) "
        "array"
    )


def _from_file(path: Path, as_stored: bool) -> Image.Image:
    with _opened(path) as file, warnings.catch_warnings():
        # What Pillow says about sizes and damaged metadata, unless the caller asked to hear it.
        warnings.filterwarnings("ignore", module=r"PIL\.", append=True)
        try:
            with Image.open(file if file.seekable() else io.BytesIO(file.read())) as image:
                return _decoded(image, as_stored, str(path))
        except _Refused as refused:
            raise ValueError(str(refused)) from None
        except _TOO_LARGE as error:
            said = str(error).split(",")[0]
            raise ValueError(f"image: {path} is too large: {said}") from error
        except MemoryError as error:
            raise ValueError(f"image: {path} is too large for this machine's memory") from error
        except Exception as error:  # damaged bytes raise whatever the code that met them does
            raise ValueError(f"image: {path} is not a picture that Pillow can read") from error


class _Refused(Exception):
    """A picture that Pillow reads, and that we do not take."""


def _opened(path: Path):
    """The file's bytes; of a pipe as well."""
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise FileNotFoundError(f"image: there is no file {path}") from None
    except OSError as error:
        raise type(error)(f"image: {path} cannot be read: {error.strerror}") from error


def _decoded(image: Image.Image, as_stored: bool, name: str) -> Image.Image:
    image.load()
    turned = image if as_stored else _upright(image)
    if not _is_deep(image):
        return _rgb(turned, as_stored)
    white = _white(image)
    if white is None:
        raise _Refused(
            f"image: {name} is {image.format} of Pillow's mode {image.mode!r}, which does not say "
            "what number is white; allowed are 8 bits, 16 bits without a sign and floats in [0, 1]"
        )
    values = np.asarray(turned)
    if values.dtype.kind == "f" and not _within_one(values):
        raise _Refused(f"image: {name} has floats outside [0, 1], allowed are [0, 1]")
    grey = _eight_bits(values, white)
    if image.format == "TIFF" and image.tag_v2.get(_PHOTOMETRIC) == 0:  # there 0 is white
        grey = 255 - grey
    key = image.info.get("transparency")
    if isinstance(key, int) and not as_stored:
        grey = np.where(values == key, np.uint8(255), grey)
    return _rgb(Image.fromarray(grey), as_stored)


def _from_pillow(image: Image.Image, as_stored: bool) -> Image.Image:
    if not all(image.size):
        raise ValueError(f"image: got {image.width} x {image.height} pixels, allowed is at least 1")
    if _is_deep(image):
        raise ValueError(
            f"image: got a Pillow image of mode {image.mode!r}, which processors clip to 8 bits; "
            "give the processor and this function what mi_pruner_cuda.picture.to_picture makes of "
            "its file or of numpy.asarray(image)"
        )
    if image.mode.endswith("a"):
        raise ValueError(
            f"image: got a Pillow image of mode {image.mode!r}, whose transparency processors do "
            f"not read; convert it to {image.mode.upper()!r} for them and for this function"
        )
    try:
        return _rgb(image, as_stored)
    except (OSError, SyntaxError, ValueError) as error:  # loaded only now, or its file is closed
        raise ValueError(f"image: Pillow cannot read this image: {error}") from error


def _is_deep(image: Image.Image) -> bool:
    """Whether it has more than 8 bits a channel: I, I;16, I;16B, .., F."""
    return image.mode[0] in "IF"


def _white(image: Image.Image) -> float | None:
    """The number that stands for white in a file of a deep mode; None if the file leaves it
    open."""
    if image.mode == "F":
        return 1.0
    if image.format == "TIFF":
        return 2.0 ** image.tag_v2[_BITS][0] - 1 if image.mode.startswith("I;16") else None
    # PGM is scaled to 16 bits by Pillow; so is PNG, in mode I by older versions of it.
    sixteen = {"PNG": ("I", "I;16"), "PPM": ("I",), "JPEG2000": ("I;16",)}
    return 65535.0 if image.mode in sixteen.get(image.format, ()) else None


def _upright(image: Image.Image) -> Image.Image:
    """Not by ImageOps.exif_transpose, which writes the EXIF anew and fails where it is damaged."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF says nothing
        return image
    turn = _UPRIGHT.get(orientation)
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image, drop_transparency: bool) -> Image.Image:
    """A new image without info."""
    if _is_transparent(image):
        image = image.convert("RGBA")
        if not drop_transparency:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    picture = image.convert("RGB")
    picture.info = {}
    return picture


def _is_transparent(image: Image.Image) -> bool:
    palette = image.palette.mode if image.mode == "P" and image.palette else ""
    return (
        image.mode.endswith("A")
        or palette.endswith("A")
        or image.info.get("transparency") is not None
    )


def _from_array(given) -> Image.Image:
    """Mode L, RGB or RGBA."""
    if np.ma.is_masked(given):
        raise ValueError("image: got an array with masked pixels; fill them: array.filled(0)")
    array = _on_host(given)
    colours = array.ndim == 3 and array.shape[2] in (3, 4)
    if not (array.ndim == 2 or colours) or array.size == 0:
        raise ValueError(
            f"image: got an array of {array.shape}, allowed are (H, W), (H, W, 3) and (H, W, 4)"
        )
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "f":
        if not _within_one(array):
            raise ValueError("image: got floats outside [0, 1], allowed are [0, 1], uint8, uint16")
        array = _eight_bits(array, 1.0)
    elif kind == "b":
        array = _eight_bits(array, 1.0)
    elif (kind, size) == ("u", 2):
        array = _eight_bits(array, 65535.0)
    elif (kind, size) != ("u", 1):
        raise TypeError(
            f"image: got an array of {array.dtype}, allowed are bool, uint8, uint16 and floats"
        )
    return Image.fromarray(np.ascontiguousarray(array))


def _on_host(given) -> np.ndarray:
    """Of a tensor, too, on any device."""
    if hasattr(given, "detach"):
        given = given.detach().cpu()
        if given.is_floating_point():
            given = given.float()  # NumPy has no bfloat16
    return np.asarray(given)


def _within_one(values: np.ndarray) -> bool:
    """False for NaN as well."""
    return bool(((values >= 0) & (values <= 1)).all())


def _eight_bits(values: np.ndarray, white: float) -> np.ndarray:
    """uint8 of the same shape."""
    return np.rint(values.astype(np.float32) * (255 / white)).astype(np.uint8)
