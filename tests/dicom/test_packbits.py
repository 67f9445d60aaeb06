"""Run lengths: equal to the standard's own description of them, byte by byte, and never more or less than the image."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pleura.dicom import packbits
from pleura.dicom.codestream import CodestreamError
from pleura.dicom.packbits import decode_rle

LITERAL = st.binary(min_size=1, max_size=128).map(lambda data: bytes([len(data) - 1]) + data)
REPEATED = st.tuples(st.integers(129, 255), st.binary(min_size=1, max_size=1)).map(lambda run: bytes([run[0]]) + run[1])
RUNS = st.lists(st.one_of(LITERAL, REPEATED, st.just(b"\x80")), min_size=1, max_size=40)


def plainly(runs: list[bytes]) -> bytes:
    """What runs give. Source: DICOM PS3.5 G.3.2."""
    return b"".join(b"" if run == b"\x80" else run[1:] if run[0] < 128 else run[1:] * (257 - run[0]) for run in runs)


def frame_of(segment: bytes) -> bytes:
    return struct.pack("<16L", 1, 64, *[0] * 14) + segment


@given(RUNS, st.sampled_from([1, 3, 1 << 16]))
def test_runs_give_what_the_standard_says_however_they_are_cut_into_parts(runs, part_bytes):
    expected = plainly(runs)
    if not expected or runs[-1] == b"\x80":
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packbits, "_PART_BYTES", part_bytes)
        assert decode_rle(frame_of(b"".join(runs)), 1, len(expected), 1).astype(np.uint8).tobytes() == expected


@given(RUNS, st.integers(1, 200))
def test_segment_that_is_cut_short_is_refused(runs, missing):
    expected, segment = plainly(runs), b"".join(runs)
    cut = segment[: max(0, len(segment) - missing)]
    if not expected or runs[-1] == b"\x80" or not cut:
        return
    with pytest.raises(CodestreamError):
        decode_rle(frame_of(cut), 1, len(expected), 1)


@given(RUNS, RUNS)
def test_segment_that_holds_more_is_refused(runs, more):
    expected = plainly(runs)
    if not expected or not any(b"".join(more)) or len(b"".join(more)) < 2:
        return
    with pytest.raises(CodestreamError):
        decode_rle(frame_of(b"".join(runs + more)), 1, len(expected), 1)
