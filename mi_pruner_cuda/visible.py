"""The part of a picture that reaches the model, and the parts of that."""

from PIL import Image


def visible_part(picture: Image.Image, processor) -> Image.Image:
    """What the visual tokens of a whole picture cover: padded and cropped as the processor does.

    Args:
        picture: RGB.
        processor: the model's, or None: then it is the whole picture.
    """
    padded = _padded(picture, processor)
    return padded.crop(visible_box(padded, processor))


def visible_box(picture: Image.Image, processor) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of what reaches the model: CLIP's processors crop the centre.

    The visual tokens cover this part only. It is larger than the picture where the processor pads
    with black. Without a processor, or with one that does not crop, it is the whole picture.
    """
    whole = (0, 0, *picture.size)
    processor = _image_processor(processor)
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
    width, height = round(crop["width"] / scale_x), round(crop["height"] / scale_y)
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


def _padded(picture: Image.Image, processor) -> Image.Image:
    """Some processors (LLaVA's with do_pad, Janus's) pad to a square in the mean colour first."""
    processor = _image_processor(processor)
    if not (getattr(processor, "do_pad", False) and hasattr(processor, "pad_to_square")):
        return picture
    mean = getattr(processor, "image_mean", None)
    side = max(picture.size)
    square = Image.new("RGB", (side, side), tuple(int(255 * share) for share in mean or (0.5,) * 3))
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square


def _image_processor(processor):
    return getattr(processor, "image_processor", processor)
