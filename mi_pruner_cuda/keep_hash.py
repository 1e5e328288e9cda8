"""keep_hash: one number that says which visual rows a selection kept."""

_FNV_OFFSET, _FNV_PRIME, _64_BITS = 0xCBF29CE484222325, 0x100000001B3, (1 << 64) - 1


def keep_hash(rows: int, kept) -> int:
    """What an engine puts into a prefix cache's key beside the image's own hash.

    Args:
        rows: how many rows the image has.
        kept: the kept ones as Python integers, ascending.

    Returns:
        FNV-1a, 64 bits unsigned, over rows and kept, each as 8 bytes, least significant first;
        mipruner_keep_hash of the C library gives the same.
    """
    value = _FNV_OFFSET
    for number in (rows, *kept):
        for byte in int(number).to_bytes(8, "little"):
            value = ((value ^ byte) * _FNV_PRIME) & _64_BITS
    return value
