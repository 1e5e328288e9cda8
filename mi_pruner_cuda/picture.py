"""Pictures as the commands and the plot take them: files, Pillow images or arrays."""

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError


def to_picture(image) -> Image.Image:
    """An RGB picture, upright.

    Args:
        image: a Pillow image, a file's path, or an array of (H, W), (H, W, 3) or (H, W, 4): uint8,
            or floats in [0, 1]. Transparency is dropped.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no picture, or the array has another shape or range.
        TypeError: something else.
    """
    if isinstance(image, (str, os.PathLike)):
        return _open(Path(image))
    if isinstance(image, Image.Image):
        return ImageOps.exif_transpose(image).convert("RGB")
    if hasattr(image, "__array__"):
        return _from_array(np.asarray(image))
    raise TypeError(
        f"image: got {type(image).__name__}, allowed is a Pillow image, a path or an (H, W, 3) "
        "array"
    )


def visible_box(picture: Image.Image, processor) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of what reaches the model: CLIP's processors crop the centre.

    The visual tokens cover this part only. Without a processor, or with one that does not crop, it
    is the whole picture.
    """
    whole = (0, 0, *picture.size)
    processor = getattr(processor, "image_processor", processor)
    if not getattr(processor, "do_center_crop", False):
        return whole
    crop, size = processor.crop_size, getattr(processor, "size", None) or {}
    if not getattr(processor, "do_resize", False):
        scale_x = scale_y = 1.0
    elif size.get("shortest_edge"):
        scale_x = scale_y = size["shortest_edge"] / min(picture.size)
    elif size.get("height") and size.get("width"):
        scale_x, scale_y = size["width"] / picture.width, size["height"] / picture.height
    else:
        return whole
    # A crop wider than the picture is padded; only the picture can be drawn.
    width = min(picture.width, round(crop["width"] / scale_x))
    height = min(picture.height, round(crop["height"] / scale_y))
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return left, top, left + width, top + height


def crop_fractions(picture: Image.Image, box) -> Image.Image:
    """The part of a picture that a box of fractions covers, at least one pixel.

    Args:
        picture: any.
        box: (left, top, right, bottom) in [0, 1], of width and height.
    """
    left, top = (min(round(f * n), n - 1) for f, n in zip(box[:2], picture.size, strict=True))
    right, bottom = (round(f * n) for f, n in zip(box[2:], picture.size, strict=True))
    return picture.crop((left, top, max(right, left + 1), max(bottom, top + 1)))


def _open(path: Path) -> Image.Image:
    if not path.exists() or path.is_dir():  # a pipe is as good as a file
        raise FileNotFoundError(f"image: there is no file {path}")
    try:
        with Image.open(path) as opened:
            return ImageOps.exif_transpose(opened).convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError) as error:  # the latter: damaged PNG
        raise ValueError(f"image: {path} is not a picture that Pillow can read") from error


def _from_array(array: np.ndarray) -> Image.Image:
    colours = array.ndim == 3 and array.shape[2] in (3, 4)
    if not (array.ndim == 2 or colours) or array.size == 0:
        raise ValueError(
            f"image: got an array of {array.shape}, allowed are (H, W), (H, W, 3) and (H, W, 4)"
        )
    if np.issubdtype(array.dtype, np.floating):
        if not (np.nanmin(array) >= 0 and np.nanmax(array) <= 1) or np.isnan(array).any():
            raise ValueError("image: got floats outside [0, 1], allowed are [0, 1] or uint8")
        array = np.round(array * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise TypeError(f"image: got an array of {array.dtype}, allowed are uint8 and floats")
    if array.ndim == 3:
        array = array[:, :, :3]
    return Image.fromarray(np.ascontiguousarray(array)).convert("RGB")
