"""Which name means which image: never one of another folder in silence, never a guess."""

from __future__ import annotations

import unicodedata

import pytest

from pleura.data.ids import pair, without_aliases
from pleura.errors import InputError


def paired(names: list[str], images: list[str]) -> dict[str, str]:
    return pair(without_aliases(names), without_aliases(images), "masks")


@pytest.mark.parametrize(
    ("names", "images", "wanted"),
    [
        (["a"], ["a"], {"a": "a"}),
        (["a"], ["sub/a"], {"a": "sub/a"}),
        (["sub/a"], ["a"], {"sub/a": "a"}),
        (["train/sub/a"], ["sub/a", "other/a"], {"train/sub/a": "sub/a"}),
        (["sub/a", "other/a"], ["sub/a", "other/a"], {"sub/a": "sub/a", "other/a": "other/a"}),
        (["sub/a"], ["sub/a", "other/a"], {"sub/a": "sub/a"}),
        (["sub/a", "third/a"], ["sub/a", "other/a"], {"sub/a": "sub/a"}),
        (["a", "sub/a"], ["a", "sub/a"], {"a": "a", "sub/a": "sub/a"}),
        (["b"], ["a"], {}),
        (["A"], ["a"], {}),
        (["xa"], ["sub/a"], {}),
    ],
)
def test_name_means_the_image_of_its_path_or_of_the_only_such_file(
    names: list[str], images: list[str], wanted: dict[str, str]
) -> None:
    assert paired(names, images) == wanted


def test_name_of_another_folder_means_no_image() -> None:
    assert paired(["sub/a", "b"], ["other/a", "b"]) == {"b": "b"}


def test_name_that_can_be_two_images_is_refused() -> None:
    with pytest.raises(InputError, match="masks: a can be other/a and sub/a"):
        paired(["a"], ["sub/a", "other/a"])


def test_two_names_of_one_image_are_refused() -> None:
    with pytest.raises(InputError, match="a and more/a are the same image; keep one"):
        paired(["a", "more/a"], ["a"])


def test_names_that_differ_in_unicode_form_alone_are_the_same() -> None:
    whole, parts = (unicodedata.normalize(form, "st\u00fcdy/M\u00fcller0") for form in ("NFC", "NFD"))
    assert whole != parts
    assert paired([whole], [parts]) == {whole: parts}
    assert paired([parts.rpartition("/")[2]], [whole]) == {parts.rpartition("/")[2]: whole}


def test_alias_counts_where_the_name_itself_does_not_fit() -> None:
    assert pair({"1.2.3": ("scan7",)}, without_aliases(["scan7"]), "seg") == {"1.2.3": "scan7"}
    assert pair({"1.2.3": ("scan7",)}, without_aliases(["1.2.3", "scan7"]), "seg") == {"1.2.3": "1.2.3"}
