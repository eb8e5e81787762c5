"""What is not recognised is refused by its folders and endings, before anything is copied."""

from __future__ import annotations

from jobs.sources.refusal import FORMS, folders_met, remedy, two_of_a_name


def test_the_folders_are_named_with_their_endings_and_numbers_left_out() -> None:
    names = [f"set{n}/pictures/a{n}.png" for n in range(3)] + ["set1/pictures/b.GIF", "readme"]
    assert folders_met(names) == "set#/pictures/ (3 .png, 1 .gif), ./ (1 without ending)"


def test_system_files_are_not_named() -> None:
    assert folders_met(["@eaDir/a.png", ".git/config", "a/b.png"]) == "a/ (1 .png)"
    assert folders_met([]) == "no files"


def test_of_many_folders_eight_are_named() -> None:
    names = [f"{letter}/1.png" for letter in "abcdefghij"]
    assert folders_met(names).endswith("h/ (1 .png), 2 more folders")


def test_a_folder_of_archives_alone_is_to_be_unpacked() -> None:
    assert remedy(["notes.txt", "set/films.zip"]).startswith("unpack 'set/films.zip' (a zip may")
    assert remedy(["films.zip", "a.png"]) == remedy(["notes.txt"]) == f"give {FORMS}"


def test_two_folders_of_the_same_names_are_told_as_one_may_hold_the_masks() -> None:
    names = [f"set/{folder}/{n}.png" for folder in ("output", "input") for n in range(3)]
    assert two_of_a_name(names) == "set/input/ and set/output/"
    assert two_of_a_name([*names, "set/input/4.png"]) == two_of_a_name([*names, "x/1.png"]) == ""
    assert two_of_a_name(["ward1/IM1.png", "ward2/IM1.png"]) == two_of_a_name([]) == ""
