"""Colour profiles made by hand, as cameras and screens have them: three primaries and a curve."""

import struct

SRGB_RED, SRGB_GREEN, SRGB_BLUE = (0.4360, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)  # at D50
WHITE = (0.9642, 1.0, 0.8249)


def make_profile(red=SRGB_RED, green=SRGB_GREEN, blue=SRGB_BLUE, *, gamma=2.2, name="made"):
    """Return an ICC profile (version 2, ICC.1:2001-04) with these primaries as XYZ."""
    text = name.encode() + b"\0"
    description = b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78)
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    tags = {
        b"desc": description + bytes(-len(description) % 4),
        b"cprt": b"text" + bytes(8),
        b"wtpt": _xyz(WHITE),
        b"rXYZ": _xyz(red),
        b"gXYZ": _xyz(green),
        b"bXYZ": _xyz(blue),
        b"rTRC": curve,
        b"gTRC": curve,
        b"bTRC": curve,
    }
    table, content, start = b"", b"", 128 + 4 + 12 * len(tags)
    for tag, value in tags.items():
        table += tag + struct.pack(">II", start + len(content), len(value))
        content += value
    body = struct.pack(">I", len(tags)) + table + content
    head = struct.pack(">I", 128 + len(body)) + bytes(4) + b"\x02\x10\0\0" + b"mntrRGB XYZ " + bytes(12) + b"acsp"
    return (head + bytes(28) + _xyz(WHITE)[8:]).ljust(128, b"\0") + body


def _xyz(values):
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in values))
