"""Which texts are URLs, what they may not hold, and how they are sorted: as the paths that they stand for."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pleura.errors import InputError
from pleura.urls.url import Url, is_url, order, place_of

POINT = "arn:aws:s3:eu-west-1:123456789012:accesspoint"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://bucket/in", "s3://bucket/in"),
        ("S3://bucket/in/", "s3://bucket/in"),
        ("gs://bucket", "gs://bucket"),
        ("az://container/a b/c#d.dcm", "az://container/a b/c#d.dcm"),
        ("abfs://container@account.dfs.core.windows.net/a", "abfs://container@account.dfs.core.windows.net/a"),
        ("s3://bucket/what?.dcm", "s3://bucket/what?.dcm"),
        (Path("s3://bucket/in"), "s3://bucket/in"),
        ("s3://bucket/10:30.dcm", "s3://bucket/10:30.dcm"),
        ("s3://bucket/a@10:30.dcm", "s3://bucket/a@10:30.dcm"),
        (f"s3://{POINT}/x/a", f"s3://{POINT}/x/a"),
    ],
)
def test_a_url_is_recognised_also_where_a_path_took_a_slash_away(text, expected):
    assert is_url(text)
    assert str(place_of(text)) == expected


@pytest.mark.parametrize("text", ["study", "/data/study", "C:/study", "C:\\study", "a:b", "strange:/file", "s3:x"])
def test_a_path_stays_a_path(text):
    assert not is_url(text)
    assert place_of(text) == Path(text)


def test_a_file_url_is_the_path_that_it_names():
    assert not is_url("file:///data/study")
    assert place_of("file:///data/study") == Path("/data/study")
    with pytest.raises(InputError, match="three slashes"):
        place_of("file://data/study")


@pytest.mark.parametrize(
    "text",
    [
        "s3://AKIA:s3cr3t@bucket/in",
        "s3://AKIA:abc/s3cr3t@bucket/in",
        "s3://AKIA:s3cr3t/cut",
        "s3://ab/c:s3cr3t@bucket/in",
        "gs://user:abc/s3cr3t@bucket",
        "s3://s3cr3t@bucket/in",
        "abfs://container:s3cr3t@account/a",
        "s3://bucket/a.dcm?X-Amz-Signature=s3cr3t",
        "az://container/a?sv=2024&sig=s3cr3t",
    ],
)
def test_a_url_with_a_secret_is_refused_and_not_repeated(text):
    with pytest.raises(InputError, match="credentials come from the environment") as caught:
        place_of(text)
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("text", ["s3://bucket/10:30 a@b.dcm", "s3://bucket/a?b=c.dcm"])
def test_an_object_that_was_found_may_have_any_name(text):
    assert str(place_of(text, is_recorded=True)) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("https://example.org/a.dcm", "none of the URLs that pleura takes"),
        ("s3://", "empty part"),
        ("s3://bucket//a", "empty part"),
        ("s3://bucket/../a", "empty part"),
    ],
)
def test_what_names_no_object_is_refused(text, reason):
    with pytest.raises(InputError, match=reason):
        place_of(text)


@given(st.lists(st.lists(st.sampled_from(["a", "a-b", "b", "a.b", "A", "é"]), min_size=1, max_size=4), max_size=8))
def test_urls_are_sorted_as_the_paths_that_they_stand_for(names):
    urls = sorted((Url("s3", ("bucket", *parts)) for parts in names), key=order)
    paths = sorted(Path("/bucket", *parts) for parts in names)
    assert [url.parts for url in urls] == [path.parts[1:] for path in paths]


def test_what_is_known_of_an_object_makes_it_no_other():
    assert Url("s3", ("b", "a"), 5, "x") == Url("s3", ("b", "a"))
    assert str(Url("s3", ("b",)) / "c" / "d.png") == "s3://b/c/d.png"
