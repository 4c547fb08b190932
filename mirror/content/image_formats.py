"""Read a file's format (by magic bytes), its size in pixels, and whether its structure is complete.

Pure; nothing here decodes pixels. `dimensions` and `whole` raise ValueError with the reason. They
may raise IndexError or struct.error if the bytes run out.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from typing import Final

# Pixels of a side: the maximum of the catalog's columns, and of PNG.
MAX_SIDE: Final = 2**31 - 1

_HTML = re.compile(
    rb"<(?:!doctype\s+html|(?:html|head|body|title|script|center|h1)\b)", re.IGNORECASE
)
_TEXT = re.compile(rb"\A(?:\xef\xbb\xbf)?\s*([\[{<])")
_AVIF: Final = frozenset((b"avif", b"avis"))
_HEIC: Final = frozenset(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"mif2")
)


def sniff(head: bytes) -> str:
    """Return the format that the first bytes show: a name in `mirror.layout.FORMATS`."""
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[4:8] == b"ftyp":
        end = min(int.from_bytes(head[:4]), 256)
        brands = {head[8:12], *(head[at : at + 4] for at in range(16, end, 4))}
        return "avif" if brands & _AVIF else "heic" if brands & _HEIC else "unknown"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "tiff"
    if head.startswith(b"BM"):
        return "bmp"
    if head.startswith(b"\0\0\0\x0cjP  \r\n\x87\n"):
        return "jp2"
    if head.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")):
        return "jxl"
    if text := _TEXT.match(head[:1024]):
        return "json" if text[1] in b"[{" else "html" if _HTML.search(head[:1024]) else "xml"
    return "unknown"


def dimensions(data: bytes, kind: str) -> tuple[int, int]:
    """Return `(width, height)` of the picture in pixels. For JPEG, ask its library instead."""
    match kind:
        case "png":
            if data[12:16] != b"IHDR":
                raise ValueError("no IHDR")
            width, height = struct.unpack_from(">II", data, 16)
        case "gif":
            width, height = struct.unpack_from("<HH", data, 6)
            for at in _gif_frames(data):
                # A decoder enlarges the screen to hold the first frame.
                x, y, w, h = struct.unpack_from("<HHHH", data, at + 1)
                width, height = max(width, x + w), max(height, y + h)
                break
        case "webp":
            width, height = _webp_size(data)
        case "bmp":
            if struct.unpack_from("<I", data, 14)[0] == 12:
                width, height = struct.unpack_from("<HH", data, 18)
            else:
                width, height = map(abs, struct.unpack_from("<ii", data, 18))
        case "tiff":
            tags = _tiff_tags(data)
            width, height = tags[256][0], tags[257][0]
            # In a TIFF the orientation belongs to the picture, and Pillow turns it.
            if tags.get(274, (1,))[0] in (5, 6, 7, 8):
                width, height = height, width
        case "avif":
            boxes = [
                struct.unpack_from(">II", data, m.end() + 4) for m in re.finditer(b"ispe", data)
            ]
            width, height = max(boxes, key=lambda size: size[0] * size[1])
        case "jp2":
            height, width = struct.unpack_from(">II", data, data.index(b"ihdr") + 4)
        case _:
            raise ValueError(f"headers of {kind} cannot be read")
    # In a TIFF the sizes may have any type: text, fractions, negative numbers.
    if not all(isinstance(side, int) and 0 <= side <= MAX_SIDE for side in (width, height)):
        raise ValueError("no size that an image can have")
    if not (width and height):
        raise ValueError(f"no pixels: {width} x {height}")
    return width, height


def allocated(data: bytes, kind: str, width: int, height: int) -> tuple[int, int]:
    """Return the size that a decoder allocates: whole tiles for TIFF, which may exceed the picture."""
    if kind == "tiff":
        tags = _tiff_tags(data)
        width, height = int(tags[256][0]), int(tags[257][0])
        across, down = (tags.get(tag, (1,))[0] for tag in (322, 323))
        # libtiff refuses other types.
        if isinstance(across, int) and isinstance(down, int) and min(across, down) > 0:
            return -(-width // across) * across, -(-height // down) * down
    return width, height


def weight(data: bytes, kind: str) -> int:
    """Return the cost of a pixel, relative to a decoder that writes it once into a frame."""
    if kind == "bmp" and data[14:18] != b"\x0c\0\0\0" and data[30:34] in _RUN_LENGTHS:
        return 30  # time: Pillow unpacks it in Python, under the interpreter's lock
    return {"webp": 2, "jp2": 3}.get(kind, 1)


_RUN_LENGTHS: Final = (b"\1\0\0\0", b"\2\0\0\0")


def picture(data: bytes, kind: str) -> bytes:
    """Return the part of a file that makes its picture: of a PNG, the chunks that a decoder needs.

    Text, profiles and animation are not part of the picture. Decoders fail on them in files whose
    pixels are complete.
    """
    if kind != "png":
        return data
    view = memoryview(data)
    return b"".join((view[:8], *(view[start:end] for _, start, end in _png_chunks(data))))


def check_whole(data: bytes, kind: str) -> None:
    """Raise ValueError unless a file's structure reaches its end.

    Decoders stop once the frame is full, and would not notice that the rest is missing.
    """
    match kind:
        case "png":
            _check_png(data)
        case "gif":
            for _ in _gif_frames(data):
                pass
        case "webp":
            if len(data) < 8 + struct.unpack_from("<I", data, 4)[0]:
                raise ValueError("shorter than its header says")
        case "tiff":
            tags = _tiff_tags(data)
            for offsets, counts in ((273, 279), (324, 325)):
                ends = map(sum, zip(tags.get(offsets, ()), tags.get(counts, ()), strict=False))
                if max(ends, default=0) > len(data):
                    raise ValueError("a strip lies beyond the end")
        # Pillow would notice a truncated file in these two formats, unless its process-wide switch
        # for truncated files is on.
        case "bmp":
            if len(data) < _bmp_end(data):
                raise ValueError("shorter than its header says")
        case "jp2":
            _walk_jp2(data)


def _bmp_end(data: bytes) -> int:
    """Offset where an uncompressed picture ends; 0 for others, whose decoder notices the end."""
    width, height = dimensions(data, "bmp")
    old = struct.unpack_from("<I", data, 14)[0] == 12
    bits = struct.unpack_from("<H", data, 24 if old else 28)[0]
    if not old and struct.unpack_from("<I", data, 30)[0] not in (0, 3):
        return 0
    row: int = width * bits
    start = int.from_bytes(data[10:14], "little")
    return start + (height - 1) * (-(-row // 32) * 4) + -(-row // 8)


def _walk_jp2(data: bytes) -> None:
    """Raise ValueError unless the tiles of the first codestream lead to its end marker."""
    at, end, name = 0, 0, b""
    while name != b"jp2c":
        start = end
        length, name = struct.unpack_from(">I4s", data, start)
        at = start + 8
        if length == 1:
            length, at = struct.unpack_from(">Q", data, at)[0], at + 8
        end = start + length if length else len(data)
        if end < at:
            raise ValueError("a box of no length")
    at += 2
    while (marker := data[at : at + 2]) != b"\xff\xd9":
        if marker == b"\xff\x90":
            # A tile's length counts from its marker. 0 means the last tile, up to the end.
            length = struct.unpack_from(">I", data, at + 6)[0] or end - 2 - at
        else:
            length = 2 + int.from_bytes(data[at + 2 : at + 4])
        if length < 4 or not marker:
            raise ValueError("ends within a tile")
        at += length


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield `(name, start, end)` of the chunks that make the picture, to the end chunk."""
    at, name = 8, b""
    while name != b"IEND":
        start = at
        length, name = struct.unpack_from(">I4s", data, start)
        at = start + 12 + length
        if at > len(data):
            raise ValueError("ends within a chunk")
        if not name[0] & 0x20 or name == b"tRNS":
            yield name, start, at


def _check_png(data: bytes) -> None:
    """Raise ValueError if a chunk of the picture has a wrong checksum, or rows are missing."""
    view = memoryview(data)
    lacking, stream = _png_length(data), zlib.decompressobj()
    for name, start, end in _png_chunks(data):
        if zlib.crc32(view[start + 4 : end - 4]) != int.from_bytes(view[end - 4 : end]):
            raise ValueError(f"checksum of {name.decode('latin-1')!r}")
        if name == b"IDAT":
            # Every decoder accepts a stream that ends early, so its bytes are counted. In pieces, and
            # no further than the picture: a stream may unpack to a thousand times its size.
            for at in range(start + 8, end - 4, _PIECE):
                piece: bytes | memoryview = view[at : min(at + _PIECE, end - 4)]
                while lacking > 0 and not stream.eof:
                    if not (got := stream.decompress(piece, _PIECE)):
                        break
                    lacking -= len(got)
                    piece = stream.unconsumed_tail
    if lacking > 0:
        raise ValueError("fewer rows than its header says")


_PIECE: Final = 1 << 16
_ADAM7: Final = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
)  # fmt: skip


def _png_length(data: bytes) -> int:
    """Return the bytes that the picture must unpack to: its rows, each after a filter byte."""
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 1)
    return sum(
        rows * (1 + -(-columns * bits // 8))
        for x, y, dx, dy in (_ADAM7 if interlaced else ((0, 0, 1, 1),))
        if (rows := -(-(height - y) // dy)) > 0 and (columns := -(-(width - x) // dx)) > 0
    )


def _gif_frames(data: bytes) -> Iterator[int]:
    """Yield the offset of each frame's descriptor; raises unless the trailer is reached."""
    at = 13 + _gif_palette(data[10])
    while (block := data[at]) != 0x3B:
        if block == 0x2C:
            yield at
            at += 10 + _gif_palette(data[at + 9]) + 1
        elif block == 0x21:
            at += 2
        else:
            raise ValueError("a block of no known kind")
        while length := data[at]:
            at += 1 + length
        at += 1


def _gif_palette(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _webp_size(data: bytes) -> tuple[int, int]:
    match data[12:16]:
        case b"VP8X":
            return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(
                data[27:30], "little"
            )
        case b"VP8L":
            bits = struct.unpack_from("<I", data, 21)[0]
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", data, 26)
            return width & 0x3FFF, height & 0x3FFF
    raise ValueError("no known first chunk")


_TIFF_TYPES: Final = {
    1: "B", 2: "s", 3: "H", 4: "I", 5: "II", 6: "b", 7: "s", 8: "h", 9: "i", 10: "ii", 11: "f",
    12: "d", 13: "I", 16: "Q", 17: "q", 18: "Q",
}  # fmt: skip


def _tiff_tags(data: bytes) -> dict[int, tuple[int, ...]]:
    """Read the tags for size and strips of the first picture.

    Raises ValueError if a tag lies beyond the end of the file, or if the values are larger together
    than the file. Such values overlap, and each of 65,000 entries could make a decoder read the
    whole file once more.
    """
    order, big = "<" if data[:2] == b"II" else ">", data[2:4] in (b"+\0", b"\0+")
    at = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
    head, entry, room = ("Q", "HHQ", 8) if big else ("H", "HHI", 4)
    tags: dict[int, tuple[int, ...]] = {}
    number = struct.unpack_from(order + head, data, at)[0]
    total = 0
    at += struct.calcsize(order + head)
    for _ in range(number):
        tag, code, count = struct.unpack_from(order + entry, data, at)
        at += struct.calcsize(order + entry) + room
        if code not in _TIFF_TYPES:
            continue
        size = struct.calcsize(order + _TIFF_TYPES[code]) * count
        value_at = at - room
        if size > room:
            value_at = struct.unpack_from(order + ("Q" if big else "I"), data, value_at)[0]
        if max(value_at + size, at) > len(data):
            raise ValueError(f"tag {tag} lies beyond the end")
        total += size if size > room else 0
        if total > len(data):
            raise ValueError("tags are larger than the file")
        if tag in (256, 257, 273, 274, 279, 322, 323, 324, 325) and len(_TIFF_TYPES[code]) == 1:
            tags[tag] = struct.unpack_from(f"{order}{count}{_TIFF_TYPES[code]}", data, value_at)
    return tags
