"""Objects behind a real server over HTTP, and refusals in one line that show no credentials."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest
from stores import BUCKET, drivers_are_forgotten

from pleura.errors import InputError, MissingExtraError, OutputError, StoreError
from pleura.urls import store
from pleura.urls.store import ahead, create, delete, exists, get, get_file, listed, put, put_file
from pleura.urls.url import Url, place_of


def url(name: str) -> Url:
    found = place_of(f"s3://{BUCKET}/{name}")
    assert isinstance(found, Url)
    return found


@pytest.fixture(autouse=True)
def a_driver_of_this_test(s3):
    drivers_are_forgotten()
    yield
    drivers_are_forgotten()


def test_an_object_is_whole_and_comes_back(s3, tmp_path):
    put(url("a/b c#d%.bin"), b"content")
    assert get(url("a/b c#d%.bin")) == b"content"
    assert get(url("a/b c#d%.bin"), 3) == b"con"
    assert exists(url("a/b c#d%.bin"))
    assert not exists(url("a"))
    get_file(url("a/b c#d%.bin"), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"content"
    put_file(tmp_path / "copy", url("a/other"))
    assert get(url("a/other")) == b"content"
    delete(url("a/b c#d%.bin"))
    delete(url("a/b c#d%.bin"))
    assert not exists(url("a/b c#d%.bin"))


def test_an_object_is_created_once(s3):
    assert create(url("once/lock"), b"first")
    assert not create(url("once/lock"), b"second")
    assert get(url("once/lock")) == b"first"


def test_a_listing_is_sorted_as_a_folder_and_says_what_objects_are(s3):
    for name in ("l/a/x", "l/a-b/x", "l/b", "l/folder/", "lother"):
        s3.files().pipe_file(f"{BUCKET}/{name}", name.encode())
    found = listed(url("l"))
    assert [str(one) for one in found] == [f"s3://{BUCKET}/l/{name}" for name in ("a/x", "a-b/x", "b")]
    assert [one.size for one in found] == [5, 7, 3]
    assert all(len(one.etag) == 32 and one.mtime_ns > 0 for one in found)
    assert [str(one) for one in listed(url("l/b"))] == [f"s3://{BUCKET}/l/b"]
    assert listed(url("nothing")) == []


def test_a_listing_asks_once_for_a_thousand_names(s3):
    for number in range(1001):
        s3.files().pipe_file(f"{BUCKET}/many/{number:04d}", b"")
    s3.requests.clear()
    assert len(listed(url("many"))) == 1001
    assert s3.counts() == {"LIST": 2}


def test_an_object_is_fetched_by_one_request_and_never_cut_short(s3):
    put(url("grows"), b"12345")
    (known,) = listed(url("grows"))
    s3.requests.clear()
    assert get(known) == b"12345"
    assert s3.counts() == {"GET": 1}
    for content in (b"123456789", b"123"):
        put(known, content)
        with pytest.raises(InputError, match="changed while it was read"):
            get(known)


def test_objects_are_fetched_ahead_in_order_and_one_that_is_gone_is_its_own_problem(s3, monkeypatch):
    for number in range(5):
        put(url(f"ahead/{number}"), b"x" * (number + 1))
    found = listed(url("ahead"))
    delete(found[2])
    for most in (1, 4, 2**20):
        monkeypatch.setattr(store, "AHEAD_BYTES", most)
        contents = [content for _, content in ahead(found, lambda one: one)]
        assert contents[:2] + contents[3:] == [b"x", b"xx", b"xxxx", b"xxxxx"]
        assert isinstance(contents[2], InputError)
        assert f"s3://{BUCKET}/ahead/2: is not there" in str(contents[2])


def test_fetches_ahead_hold_no_more_bytes_than_they_may(s3, monkeypatch):
    found = [Url("s3", (BUCKET, f"{number}"), size=10) for number in range(20)]
    held: list[int] = []
    monkeypatch.setattr(store, "AHEAD_BYTES", 35)
    monkeypatch.setattr(store, "_got", lambda one, first: held.append(1) or b"")  # type: ignore[func-returns-value]
    taken = 0
    for _ in ahead(found, lambda one: one):
        taken += 1
        assert len(held) - taken < 3
    assert taken == 20


def test_a_bucket_that_is_not_there_is_refused(s3, tmp_path):
    nowhere = Url("s3", ("no-such-bucket", "a"))
    with pytest.raises(InputError, match="s3://no-such-bucket/a: is not there; check its name, and that of the bucket"):
        listed(nowhere)
    with pytest.raises(StoreError, match="is not there"):
        put(nowhere, b"")


def test_a_server_that_is_away_is_refused_in_bounded_time_and_one_line(s3, monkeypatch):
    for server in ("http://127.0.0.1:9", "http://user:s3cr3t@127.0.0.1:9"):
        monkeypatch.setenv("AWS_ENDPOINT_URL", server)
        drivers_are_forgotten()
        began = time.monotonic()
        with pytest.raises(StoreError, match=r"its server cannot be reached; check the network") as caught:
            get(url("a"))
        assert time.monotonic() - began < 60
        assert "s3cr3t" not in str(caught.value)
        assert caught.value.__cause__ is None


def test_a_lack_of_credentials_is_said_with_the_way_out(s3, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(StoreError, match="no credentials in the environment"):
        put(url("a"), b"")


def test_denied_access_ends_a_batch_that_writes_and_is_one_problem_of_a_file_that_is_read(s3, monkeypatch):
    class Denying:
        def cat_file(self, *_, **__):
            raise PermissionError("AKIAKEY has no right")

        def pipe_file(self, *_, **__):
            raise PermissionError("AKIAKEY has no right")

    monkeypatch.setattr(store, "_store", lambda scheme: Denying())
    with pytest.raises(InputError, match=f"s3://{BUCKET}/a: access denied; give") as caught:
        get(url("a"))
    assert "AKIAKEY" not in str(caught.value)
    with pytest.raises(StoreError, match="access denied"):
        put(url("a"), b"")
    monkeypatch.undo()


def refusing(code: str, status: int) -> Any:
    """A store that answers each request with an error, as s3fs puts it."""
    botocore, errors = pytest.importorskip("botocore.exceptions"), pytest.importorskip("s3fs.errors")
    answer = {"Error": {"Code": code, "Message": "AKIAKEY"}, "ResponseMetadata": {"HTTPStatusCode": status}}

    class Refusing:
        def cat_file(self, *_, **__):
            raise errors.translate_boto_error(botocore.ClientError(answer, "GetObject"))

        pipe_file = cat_file

    return lambda scheme: Refusing()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("ExpiredToken", "have expired; get new ones"),
        ("InvalidToken", "check AWS_SESSION_TOKEN"),
        ("InvalidAccessKeyId", "check AWS_ACCESS_KEY_ID"),
        ("SignatureDoesNotMatch", "check AWS_SECRET_ACCESS_KEY"),
        ("AccountProblem", "does not take the credentials"),
    ],
)
def test_credentials_that_are_not_taken_end_a_batch_also_where_it_reads(monkeypatch, code, reason):
    monkeypatch.setattr(store, "_store", refusing(code, 403))
    with pytest.raises(StoreError, match=reason) as caught:
        get(url("a"))
    assert "AKIAKEY" not in str(caught.value)
    monkeypatch.setattr(store, "_store", refusing("AccessDenied", 403))
    with pytest.raises(InputError, match="access denied"):
        get(url("a"))
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("code", "status"), [("PreconditionFailed", 412), ("412", 412), ("ConditionalRequestConflict", 409)]
)
def test_every_answer_that_an_object_is_there_creates_none(monkeypatch, code, status):
    monkeypatch.setattr(store, "_store", refusing(code, status))
    assert create(url("a"), b"") is False
    monkeypatch.setattr(store, "_store", refusing("InternalError", 500))
    with pytest.raises(StoreError):
        create(url("a"), b"")
    monkeypatch.undo()


def test_an_object_in_an_archive_is_its_own_problem(s3):
    s3.files().pipe_file(f"{BUCKET}/archived/one", b"some", StorageClass="GLACIER")
    (one,) = listed(url("archived"))
    with pytest.raises(InputError, match=r"archived/one: is archived; restore it"):
        get(one)
    found = dict(ahead([one], lambda url: url))
    assert "is archived; restore it" in str(found[one])


def test_an_object_that_was_emptied_is_its_own_problem(s3):
    put(url("emptied"), b"12345")
    (known,) = listed(url("emptied"))
    put(known, b"")
    with pytest.raises(InputError, match="changed while it was read"):
        get(known)
    assert get(url("emptied"), 10) == b""


def test_a_driver_that_is_missing_is_named_with_what_installs_it(s3, monkeypatch):
    with pytest.raises(MissingExtraError, match="gs:// needs gcsfs, fsspec's driver for it: pip install gcsfs"):
        listed(Url("gs", ("bucket",)))
    monkeypatch.setattr("pleura.extras.is_installed", lambda name: name != "s3fs")
    with pytest.raises(MissingExtraError, match=r's3:// needs s3fs.*pip install "pleura\[urls\]"'):
        listed(url("a"))


def test_a_full_disk_is_not_the_stores_fault(s3, tmp_path):
    put(url("some"), b"content")
    logging.getLogger("s3fs").setLevel(logging.CRITICAL)
    with pytest.raises(OutputError):
        get_file(url("some"), tmp_path / ("x" * 300))


def test_few_parts_of_a_large_file_are_in_memory_at_once(s3, tmp_path, monkeypatch):
    """s3fs holds each that it sends: ten of 50 MiB by its own choice."""
    import s3fs.core

    monkeypatch.setattr(s3fs.core, "calculate_chunksize", lambda size, **_: 5 * 2**20)
    under_way, most = 0, 0
    real = s3fs.S3FileSystem._call_s3

    async def call(self, method, *arguments, **more):
        nonlocal under_way, most
        under_way += method == "upload_part"
        most = max(most, under_way)
        try:
            return await real(self, method, *arguments, **more)
        finally:
            under_way -= method == "upload_part"

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", call)
    (tmp_path / "large").write_bytes(bytes(range(256)) * 4096 * 26)  # 26 MiB: six parts
    put_file(tmp_path / "large", url("parts/large"))
    assert s3.contents("parts")["large"] == (tmp_path / "large").read_bytes()
    assert s3.counts("parts/large?")["PUT"] == 6
    assert most == store.PARTS_AT_ONCE
