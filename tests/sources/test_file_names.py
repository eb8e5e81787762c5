"""Which files are no images, and why: by their names."""

from __future__ import annotations

import pytest

from jobs.sources.layouts import recognise


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("CXR_png/Thumbs.db", "system files"),
        ("CXR_png/.DS_Store", "system files"),
        ("__MACOSX/images/._a.png", "system files"),
        ("images/._a.png", "system files"),
        ("desktop.ini", "system files"),
        ("images/.ipynb_checkpoints/a-checkpoint.png", "hidden files and folders"),
        (".git/images/a.png", "hidden files and folders"),
        ("MetaData.csv", "text and metadata"),
        ("ReadMe.TXT", "text and metadata"),
        ("images/a.png.xml", "text and metadata"),
        ("paper.pdf", "text and metadata"),
        ("images/a.dcm", "DICOM files"),
        ("images/no extension", "other files"),
        ("inner.zip", "archives"),
        ("images/@eaDir/a.png/SYNOPHOTO_THUMB_XL.jpg", "system files"),
        ("#recycle/a.png", "system files"),
        ("@Recycle/a.png", "system files"),
        ("$RECYCLE.BIN/S-1-5-21/$R1.png", "system files"),
        ("System Volume Information/a.png", "system files"),
        ("lost+found/#12.png", "system files"),
        ("images/~$a.png", "system files"),
        ("#snapshot/daily/images/a.png", "system files"),
        ("images/a.png:Zone.Identifier", "system files"),
        ("@appstore/viewer/icon.png", "system files"),
        ("$Extend/$RmMetadata/a.png", "system files"),
        ("$WINDOWS.~BT/a.png", "system files"),
    ],
)
def test_a_file_that_is_not_an_image_is_ignored_with_its_reason(name: str, reason: str) -> None:
    catalogue = recognise([[name, "images/film.png"]])
    assert catalogue.ignored == {reason: 1}
    assert len(catalogue.films) == 1


@pytest.mark.parametrize("ending", [".APNG", ".pjpeg", ".jif", ".j2c", ".JPF", ".png "])
def test_a_rarer_ending_of_an_image_is_an_images(ending: str) -> None:
    assert len(recognise([["images/film" + ending]]).films) == 1
