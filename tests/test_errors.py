"""The errors: one tree, and what the operating system refuses becomes one line with the way out."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pleura import errors
from pleura.errors import EXCERPT_CHARACTERS, InputError, OutputError, PleuraError, RLEError, excerpt, writing


def test_every_error_is_a_pleura_error_with_a_docstring():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(kinds) >= 7
    assert all(issubclass(kind, PleuraError) and kind.__doc__ for kind in kinds)


def test_a_wrong_run_length_string_is_a_kind_of_wrong_input():
    assert issubclass(RLEError, InputError)
    assert not issubclass(OutputError, InputError)


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("CHEST", "CHEST"),
        ("", ""),
        ("two\r\nlines  of\x00it\x1b", "two lines of it"),
        ("x" * 64, "x" * 64),
        ("x" * 65, "x" * 61 + "..."),
        ("\n" * 10**6 + "late", ""),
        ("\u2028right\u202eleft", "right left"),
    ],
)
def test_an_excerpt_is_one_line_of_64_printable_characters(text, quoted):
    assert excerpt(text) == quoted
    assert len(excerpt(text * 99)) <= EXCERPT_CHARACTERS
    assert excerpt(text).isprintable()


@pytest.mark.parametrize(
    ("number", "way_out"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some space"),
        (errno.EACCES, "choose another --out"),
        (errno.EROFS, "choose another --out"),
        (errno.ENOTDIR, "choose another --out"),
        (errno.EEXIST, "choose another --out"),
    ],
)
def test_a_refusal_to_write_names_the_file_and_the_way_out(number: int, way_out: str):
    with (
        pytest.raises(OutputError, match=f"cannot write run/masks.csv: .*{way_out}") as caught,
        writing("run/masks.csv"),
    ):
        raise OSError(number, os.strerror(number))
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)


def test_a_rare_refusal_keeps_the_words_of_the_operating_system():
    with pytest.raises(OutputError, match=os.strerror(errno.EMFILE)), writing(Path("x")):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def test_a_refusal_without_a_number_still_says_something():
    with pytest.raises(OutputError, match="the cable was pulled"), writing(Path("x")):
        raise OSError("the cable was pulled")


def test_a_bug_while_writing_stays_a_bug():
    with pytest.raises(ZeroDivisionError), writing(Path("x")):
        _ = 1 / 0
