"""problems.csv: every file by name, but of masks without an image only some."""

from __future__ import annotations

from pathlib import Path

from pleura.data.problems import Problem, read_problems, write_problems


def test_of_masks_without_an_image_the_first_are_named_and_the_others_counted(tmp_path: Path):
    absent = [Problem("no image", f"{number:04d}", "", "a mask without an image") for number in range(2549)]
    bad = Problem("quarantined", "x", "x.dcm", "is cut short")
    write_problems(tmp_path / "p.csv", [*absent, bad])
    found = read_problems(tmp_path / "p.csv")
    assert found[:2] == [bad, absent[0]]
    assert len(found) == 22
    assert found[-1].reason == "so are 2529 more csv rows or masks"
