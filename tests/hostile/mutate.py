"""Seeded damage to files, and a watch on what reading them costs."""

from __future__ import annotations

import random
import re
import struct
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

_LONGEST = 200_000
_TOKENS = tuple(
    re.compile(pattern)
    for pattern in (
        rb'"[^"\n]{0,80}"',
        rb"-?\d[\d.eE+-]*",
        rb"-?\d[\d.eE+-]*",
        rb"\w+",
        rb"\[[^\[\]]{0,200}\]",
        rb"\{[^{}]{0,300}\}",
    )
)
_VALUES = (
    *(b"0", b"-0", b"1", b"-1", b"2", b"0.5", b"1e-320", b"1e308", b"-1e308", b"1e999", b"NaN", b"nan", b"inf", b"-Infinity"),
    *(b"127", b"255", b"32768", b"65536", b"2147483648", b"4294967296", b"9223372036854775807", b"18446744073709551616"),
    *(
        b"9" * 400,
        b"9" * 5000,
        b"null",
        b"true",
        b"false",
        b'""',
        b'"1"',
        b'"a"',
        b'"\\ud800"',
        b"[]",
        b"{}",
        b"[[]]",
        b'{"a": 1}',
    ),
    *(b"", b" ", b"\n", b"\r", b"\0", b"\xff", b"\xef\xbb\xbf", b"[" * 3000, b"-" * 50, b"\xc3\xa4", b"%s", b"../..", b"LIST"),
)
_INTEGERS = (0, 1, -1, 2, 3, 7, 127, -128, 255, 32767, -32768, 65535, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63))
_FLOATS = (0.0, -1.0, float("nan"), float("inf"), float("-inf"), 1e-45, 1e38, -1e38, 352.5)


def mutant(seeds: Sequence[bytes], draw: random.Random) -> bytes:
    """One of the seeds with one to four kinds of damage, one after the other."""
    content, other = draw.choice(seeds), draw.choice(seeds)
    for _ in range(draw.choice((1, 1, 2, 3, 4))):
        content = draw.choice(_DAMAGES)(content, other, draw)[:_LONGEST]
    return content


def _place(content: bytes, draw: random.Random) -> int:
    """A position, near the beginning (the header) as often as anywhere."""
    return draw.randint(0, min(len(content), draw.choice((16, 400, 10**9))))


def _slice(content: bytes, draw: random.Random) -> tuple[int, int]:
    start = _place(content, draw)
    return start, min(start + draw.choice((1, 2, 4, 8, 40, 500, 10**9)), len(content))


def _flip(content: bytes, _: bytes, draw: random.Random) -> bytes:
    out = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 8)) if content else 0):
        out[min(_place(content, draw), len(out) - 1)] ^= 1 << draw.randrange(8)
    return bytes(out)


def _insert(content: bytes, _: bytes, draw: random.Random) -> bytes:
    at = _place(content, draw)
    return content[:at] + draw.choice((draw.randbytes(draw.randint(1, 9)), draw.choice(_VALUES))) + content[at:]


def _delete(content: bytes, _: bytes, draw: random.Random) -> bytes:
    start, stop = _slice(content, draw)
    return content[:start] + content[stop:]


def _duplicate(content: bytes, _: bytes, draw: random.Random) -> bytes:
    start, stop = _slice(content, draw)
    return content[:stop] + content[start:stop] * draw.choice((1, 1, 2, 30)) + content[stop:]


def _number(content: bytes, _: bytes, draw: random.Random) -> bytes:
    """Another value for one that is written as text."""
    found = [*draw.choice(_TOKENS).finditer(content, 0, 30_000)]
    if not found:
        return content
    match = draw.choice(found)
    return content[: match.start()] + draw.choice(_VALUES) + content[match.end() :]


def _binary(content: bytes, _: bytes, draw: random.Random) -> bytes:
    """Another value for a number of 1 to 8 bytes, mostly where such numbers are aligned."""
    code = draw.choice("bBhHiIqQfd")
    if code in "fd":
        value = draw.choice(_FLOATS)
    else:
        value = draw.choice(_INTEGERS) & (1 << 8 * struct.calcsize(code)) - 1
        code = code.upper()
    packed = struct.pack(draw.choice("<>") + code, value)
    at = _place(content, draw) // draw.choice((1, len(packed))) * len(packed)
    return content[:at] + packed + content[at + len(packed) :]


def _truncate(content: bytes, _: bytes, draw: random.Random) -> bytes:
    return content[: draw.choice((_place(content, draw), max(len(content) - draw.randint(1, 9), 0)))]


def _splice(content: bytes, other: bytes, draw: random.Random) -> bytes:
    return content[: _place(content, draw)] + other[_place(other, draw) :]


_DAMAGES: tuple[Callable[[bytes, bytes, random.Random], bytes], ...] = (
    *(_flip, _insert, _delete, _duplicate, _number, _number, _number, _binary, _binary, _truncate, _splice),
)


class Watch:
    """How much processor time the code inside takes (``seconds``), and how far memory rises while it runs (``grown_mb``)."""

    seconds = grown_mb = 0.0

    def __enter__(self) -> Watch:
        if sys.platform.startswith("linux"):
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # forgets the peak so far
        self.start, self._held_mb = time.process_time(), _peak_mb()
        return self

    def __exit__(self, *_) -> None:
        self.seconds, self.grown_mb = time.process_time() - self.start, _peak_mb() - self._held_mb


def _peak_mb() -> float:
    """Most memory held; 0 where the system does not say."""
    if not sys.platform.startswith("linux"):
        return 0.0
    status = Path("/proc/self/status").read_bytes()
    return int(re.search(rb"VmHWM:\s*(\d+)", status)[1]) / 1024
