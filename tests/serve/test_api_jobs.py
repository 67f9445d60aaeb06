"""Jobs: many files in one request, their progress, and how long they are kept."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest
from served import TIMEOUT_S, Answer, Seen, Served, form, serving, wait_for

from pleura.serve.keys import load_keys
from pleura.serve.settings import Limits

KEYS = "0123456789abcdef", "fedcba9876543210"


def send(served: Served, *files: tuple[str, bytes], **headers: str) -> Answer:
    body, own = form(*files)
    return served.ask(
        "POST", "/v1/predict:batch", body, own | {key.replace("_", "-"): text for key, text in headers.items()}
    )


def finished(served: Served, job: Answer, **headers: str) -> Answer:
    """The job, once it is finished."""
    location, named = job.json["location"], {key.replace("_", "-"): text for key, text in headers.items()}
    wait_for(lambda: served.api.jobs._jobs[job.json["job_id"]].is_finished)
    return served.ask("GET", location, headers=named)


@contextmanager
def stopped(seen: Seen) -> Iterator[None]:
    """The net waits meanwhile."""
    seen.go.clear()
    try:
        yield
    finally:
        seen.go.set()


def test_results_come_in_the_order_of_the_files_and_one_bad_file_is_one_problem(
    served: Served, predictor, files
) -> None:
    job = send(served, ("a.dcm", files["dicom"]), ("Smith^John", b"no radiograph"), ("c", files["png"]))
    assert (job.status, job.headers["location"]) == (202, job.json["location"])
    assert job.json["files"] == 3
    done = finished(served, job).json
    assert (done["status"], done["done"], done["failed"]) == ("finished", 3, 1)
    assert [(each["index"], each["name"]) for each in done["results"]] == [(0, "a.dcm"), (1, "Smith^John"), (2, "c")]
    first, second, third = done["results"]
    assert first["prediction"]["mask_rle"] == predictor.predict(files["dicom"]).to_dict()["mask_rle"]
    assert third["prediction"]["mask_rle"] == predictor.predict(files["png"]).to_dict()["mask_rle"]
    assert second["problem"]["code"] == "unreadable"
    assert served.api.service.held.bytes == 0


def test_files_of_multipart_related_make_a_job_too(served: Served, files) -> None:
    part = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + files["dicom"] + b"\r\n"
    headers = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=b'}
    job = served.ask("POST", "/v1/predict:batch", part * 2 + b"--b--", headers)
    assert [each["name"] for each in finished(served, job).json["results"]] == [None, None]


def test_a_job_says_how_far_it_is(seen: Seen, files) -> None:
    with serving(seen) as served:
        with stopped(seen):
            job = send(served, ("a", files["png"]), ("b", files["png"]))
            answer = served.ask("GET", job.json["location"])
            assert (answer.status, answer.json["status"], answer.json["done"]) == (200, "queued", 0)
            assert "results" not in answer.json
            assert answer.headers["retry-after"] == "1"
        assert finished(served, job).json["done"] == 2


def test_a_single_request_waits_for_two_files_of_a_job_at_most(seen: Seen, files) -> None:
    with serving(seen) as served, ThreadPoolExecutor(1) as client:
        with stopped(seen):
            job = send(served, *[(str(number), files["png"]) for number in range(5)])
            wait_for(lambda: seen.batches and len(served.api.service._batcher._waiting) == 1)
            single = client.submit(served.predict, files["dicom"])
            wait_for(lambda: len(served.api.service._batcher._waiting) == 2)
        assert finished(served, job).json["done"] == 5
        assert seen.order.index(single.result().json["prediction"]["image_id"]) == 2


def test_a_fault_of_the_service_ends_no_job(seen: Seen, files) -> None:
    seen.fail = lambda radiograph: radiograph.sop_instance_uid is None
    with serving(seen) as served:
        done = finished(served, send(served, ("a", files["png"]), ("b", files["dicom"]))).json
    assert done["results"][0]["problem"]["code"] == "internal"
    assert done["results"][1]["prediction"]["is_positive"]


def test_a_job_belongs_to_the_key_that_it_came_with(seen: Seen, tmp_path, files) -> None:
    (tmp_path / "keys").write_text("\n".join(KEYS))
    with serving(seen, keys=load_keys(tmp_path / "keys", {})) as served:
        job = send(served, ("a", files["png"]), X_API_Key=KEYS[0])
        assert finished(served, job, X_API_Key=KEYS[0]).status == 200
        for method in ("GET", "DELETE"):
            other = served.ask(method, job.json["location"], headers={"X-API-Key": KEYS[1]})
            assert (other.status, other.json["code"]) == (404, "no-such-job")
        assert served.ask("DELETE", job.json["location"], headers={"X-API-Key": KEYS[0]}).status == 204


def test_a_deleted_job_is_forgotten_and_the_rest_of_it_is_not_predicted(seen: Seen, files) -> None:
    with serving(seen) as served:
        with stopped(seen):
            job = send(served, *[(str(number), files["png"]) for number in range(4)])
            wait_for(lambda: seen.batches and len(served.api.service._batcher._waiting) == 1)
            assert served.ask("DELETE", job.json["location"]).status == 204
            assert served.ask("GET", job.json["location"]).json["code"] == "no-such-job"
            assert served.api.service.held.bytes == 0
        wait_for(lambda: not served.api.jobs._tasks)
        assert len(seen.batches) <= 2, "what was decoded before it was deleted may pass"


def test_a_finished_job_is_kept_a_little_after_it_was_fetched_and_then_forgotten(seen: Seen, files) -> None:
    with serving(seen, Limits(fetched_s=0.5)) as served:
        job = send(served, ("a", files["png"]))
        first = finished(served, job)
        assert served.ask("GET", job.json["location"]).json["results"] == first.json["results"]
        wait_for(lambda: served.ask("GET", job.json["location"]).status == 404)


def test_a_finished_job_that_nobody_fetches_is_forgotten(seen: Seen, files) -> None:
    with serving(seen, Limits(job_s=0.1)) as served:
        send(served, ("a", files["png"]))
        wait_for(lambda: served.api.jobs.waiting == 0)


def test_jobs_are_bounded_in_number_and_fetched_ones_make_room(seen: Seen, files) -> None:
    with serving(seen, Limits(jobs=2)) as served:
        jobs = [send(served, ("a", files["png"])) for _ in range(2)]
        refused = send(served, ("a", files["png"]))
        assert (refused.status, refused.json["code"], refused.headers["retry-after"]) == (429, "too-many-jobs", "5")
        finished(served, jobs[0])
        assert send(served, ("a", files["png"])).status == 202
        assert served.ask("GET", jobs[0].json["location"]).status == 404
        assert served.ask("GET", jobs[1].json["location"]).status == 200


def test_files_of_a_job_are_bounded_in_number_and_bytes(seen: Seen, files) -> None:
    limits = Limits(files=2, batch_body_bytes=100_000)
    with serving(seen, limits) as served:
        many = send(served, *[("a", b"x")] * 3)
        assert (many.status, many.json["code"]) == (413, "too-many-files")
        large = send(served, ("a", bytes(100_000)))
        assert (large.status, large.json["code"]) == (413, "too-large")
        assert served.api.service.held.bytes == 0


def test_what_a_job_holds_counts_until_it_is_finished(seen: Seen, files) -> None:
    limits = replace(Limits(), held_bytes=int(1.5 * len(files["png"])))
    with serving(seen, limits) as served:
        with stopped(seen):
            job = send(served, ("a", files["png"]))
            assert served.predict(files["png"]).json["code"] == "busy"
        finished(served, job)
        assert served.predict(files["png"]).status == 200


def test_a_signal_to_stop_waits_for_a_job_and_for_its_results_to_be_fetched(seen: Seen, files) -> None:
    with serving(seen) as served:
        with stopped(seen):
            job = send(served, ("a", files["png"]), ("b", files["dicom"]))
            served.server.handle_exit(signal.SIGTERM, None)
            assert send(served, ("c", files["png"])).json["code"] == "stopping"
        assert finished(served, job).json["done"] == 2
        served.thread.join(TIMEOUT_S)
        assert not served.thread.is_alive()


def test_results_that_nobody_fetches_hold_a_stop_up_for_a_moment_only(seen: Seen, files) -> None:
    with serving(seen, Limits(last_fetch_s=0.2)) as served:
        job = send(served, ("a", files["png"]))
        wait_for(lambda: served.api.jobs._jobs[job.json["job_id"]].is_finished)
        served.server.handle_exit(signal.SIGTERM, None)
        served.thread.join(TIMEOUT_S)
        assert not served.thread.is_alive()


@pytest.mark.parametrize("signals", [1, 2])
def test_a_stop_is_bounded_whatever_still_runs(seen: Seen, files, signals: int) -> None:
    limits = Limits(stop_s=0.2 if signals == 1 else 1000)
    with serving(seen, limits) as served, stopped(seen):
        send(served, ("a", files["png"]))
        for _ in range(signals):
            served.server.handle_exit(signal.SIGTERM, None)
        served.thread.join(TIMEOUT_S)
        assert not served.thread.is_alive()
