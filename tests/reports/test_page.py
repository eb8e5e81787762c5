"""page: the report loads nothing, shows the run's figures and never runs a name as code."""

from __future__ import annotations

import base64
import gzip
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs.errors import BadDataError
from jobs.imaging import encode, geometry, masks
from jobs.imaging.borders import Box
from jobs.reports import page
from jobs.reports.summary import summarise
from jobs.settings.config import EvaluateConfig, PublishConfig
from jobs.storage.manifest import Manifest, describe
from jobs.storage.work_folder import WorkFolder, pack_rows
from tests.support.pages import Page
from tests.support.published import Chain, chain

pytestmark = pytest.mark.slow

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>&amp;{{ 7 * 7 }}.png"
LOADING = {"src", "href", "srcset", "data", "poster", "action", "xlink:href"}


@pytest.fixture(scope="module")
def films(s3: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    with chain(s3, tmp_path_factory.mktemp("films")) as made:
        yield made


@pytest.fixture(scope="module")
def published(films: Chain) -> Manifest:
    return films.publish(films.five(0.7), run_id="shown")


@pytest.fixture(scope="module")
def source(films: Chain, published: Manifest) -> bytes:
    return films.store.read(published.uri.replace("run.json", "report.html"))


def build(
    films: Chain,
    published: Manifest,
    five: Mapping[str, Manifest],
    details: Mapping[str, Any] | None = None,
    **contents: Any,
) -> Page:
    """The page of the published run with other manifests, details and contents."""
    model_json = films.store.read_json(published.details["model"] + "/model.json")
    uris: dict[str, Any] = {name: manifest.uri for name, manifest in five.items()}
    config = PublishConfig(out=films.out, run_id="shown", **uris)
    html = page.build(
        page.read_contents(films.store, five) | contents,
        {**published.details, **(details or {})},
        model_json=model_json,
        config=config,
    )
    return Page(html)


def with_quality(
    films: Chain, five: dict[str, Manifest], changes: list[dict[str, Any]]
) -> dict[str, Manifest]:
    """The run's manifests, the rows of the first films in predict's manifest with `changes`.

    All other films have quality 1 and are not flagged.
    """
    predictions = five["predictions"]
    rows = list(predictions.rows(films.store))
    for row in rows:
        row |= {"quality": 1.0, "review": False}
    for row, change in zip(rows, changes, strict=False):
        row |= change
    packed = pack_rows(rows)
    films.store.write(predictions.uri_of("quality.jsonl.gz"), packed)
    part = describe("quality.jsonl.gz", gzip.decompress(packed))
    return five | {"predictions": replace(predictions, parts=[part])}


def test_the_page_loads_nothing_and_runs_nothing(source: bytes) -> None:
    for tag, attributes in Page(source).elements:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base", "form"}
        for name, value in attributes.items():
            assert not name.startswith("on") and name != "style"
            assert name not in LOADING or str(value).startswith("data:image/jpeg;base64,")
    style = re.findall(r"<style>(.*?)</style>", source.decode(), re.S)
    assert len(style) == 1
    assert "url(" not in style[0] and "@import" not in style[0]


def test_the_pages_policy_forbids_all_but_inlined_images_and_styles(source: bytes) -> None:
    (policy,) = (
        attributes["content"]
        for tag, attributes in Page(source).elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_the_images_are_complete_and_have_an_alternative_text(source: bytes) -> None:
    images = [attributes for tag, attributes in Page(source).elements if tag == "img"]
    assert len(images) == page.SAMPLES + len(["contact sheet", "worst"])
    for attributes in images:
        jpeg = base64.b64decode(str(attributes["src"]).partition(",")[2])
        assert max(Image.open(io.BytesIO(jpeg)).size) >= 200
        assert attributes["alt"]


def test_a_contact_sheet_larger_than_any_that_a_job_draws_is_refused(films: Chain) -> None:
    five = films.five(0.7)
    stream = io.BytesIO()
    Image.new("RGB", (10_000, 10_000)).save(stream, "PNG")
    processed = five["processed"]
    films.store.write(processed.uri_of("large.png"), stream.getvalue())
    sheet = describe("large.png", stream.getvalue())
    listed = replace(processed, files=[*processed.files, sheet])
    with pytest.raises(BadDataError, match=r"10000 x 10000 pixels are over 4 mega.*run preprocess"):
        page._picture(films.store, listed, "large.png")


def test_the_page_has_the_runs_figures(films: Chain, published: Manifest, source: bytes) -> None:
    text = Page(source).text
    test = json.loads(films.five(0.7)["evaluation"].read_file(films.store, "metrics.json"))["test"]
    assert f"Mean Dice {test['dice']['mean']:.3f} on 8 films" in text
    assert f"5th percentile, {test['dice']['p05']:.3f}, depends on the worst one or two" in text
    interval = f"{test['dice']['low']:.3f} to {test['dice']['high']:.3f}"
    assert f"interval of the mean is {interval}; with fewer than 20 patients the true" in text
    assert text.count(interval) >= 2
    assert f"mean IoU is {test['iou']['low']:.3f} to {test['iou']['high']:.3f}" in text
    assert f"mean HD95 {test['hd95']['low']:.2f} to {test['hd95']['high']:.2f}." in text
    assert f"Test HD95, % of diagonal {test['hd95']['mean']:.2f}" in text
    assert published.details["champion"]["reason"] in text
    assert "The first champion." in text
    assert "best 0.900, epoch 3" in text and "last 0.850, epoch 4" in text
    assert "Of 24 films, 24 are used and 0 quarantined" in text
    assert "montgomery" in text and "Not for diagnosis." in text
    for job in published.details["jobs"]:
        assert job["content_hash"][:12] in text


def test_the_page_holds_no_figure_that_is_none(source: bytes) -> None:
    words = set(re.findall(r"\w+", Page(source).text))
    assert words & {"nan", "NaN", "None", "inf", "Undefined", "null"} == set()


def test_names_from_users_files_are_shown_as_text(films: Chain, published: Manifest) -> None:
    five = films.five(0.7)
    harmless = build(films, published, five)
    raw, processed = five["raw"], five["processed"]
    raw_details = {
        "without_mask": [HOSTILE],
        "masks_without_film": [HOSTILE],
        "copies": [HOSTILE],
        "layouts": {HOSTILE: 1},
        "ignored": {HOSTILE: 1},
    }
    processed_details = {"reasons": {HOSTILE: 1}, "by_source": {HOSTILE: {"train": 1}}}
    five["raw"] = replace(raw, details=raw.details | raw_details)
    five["processed"] = replace(processed, details=processed.details | processed_details)
    jobs = [job | {"config": {HOSTILE: HOSTILE}} for job in published.details["jobs"]]
    page = build(films, published, five, {"jobs": jobs})
    assert page.text.count(HOSTILE) >= 7 + 2 * len(jobs)
    new_tags = {tag for tag, _ in page.elements} - {tag for tag, _ in harmless.elements}
    assert new_tags == set()
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)


def test_whether_a_job_was_reused_is_shown_only_where_it_is_known(
    films: Chain, published: Manifest, source: bytes
) -> None:
    assert "reused" not in Page(source).text
    jobs = [job | {"reused": job["job"] != "train"} for job in published.details["jobs"]]
    page = build(films, published, films.five(0.7), {"jobs": jobs})
    assert page.text.count("reused") == 4


def test_a_run_without_a_test_film_says_so(films: Chain, published: Manifest) -> None:
    five = films.five(0.7)
    stage = WorkFolder(
        films.store,
        EvaluateConfig(
            predictions=five["predictions"].uri, processed=five["processed"].uri, out=films.out
        ),
        job="evaluate",
        folder="evaluations",
        recipe="none tested",
        inputs={name: five[name] for name in ("predictions", "processed", "raw")},
    )
    metrics = summarise([], ["montgomery"]) | {"calibration": None}
    stage.add_file("metrics.json", json.dumps(metrics).encode())
    stage.add_file("worst.png", five["evaluation"].read_file(films.store, "worst.png"))
    page = build(films, published, five | {"evaluation": stage.finish(counts={}, headline={})})
    assert "No test film was scored" in page.text
    assert sum(tag == "img" for tag, _ in page.elements) == 1


def test_the_page_shows_the_calibration(films: Chain, published: Manifest, source: bytes) -> None:
    evaluation = films.five(0.7)["evaluation"]
    figures = json.loads(evaluation.read_file(films.store, "metrics.json"))["calibration"]
    text = Page(source).text
    assert f"Expected calibration error {figures['expected_error']:.3f}" in text
    assert (
        f"Brier score {figures['brier']:.3f}; {figures['pixels']:,} pixels of 8 test films" in text
    )
    labels = [
        attributes.get("aria-label") for tag, attributes in Page(source).elements if tag == "svg"
    ]
    assert "Share of the pixels that is lung by the probability predicted for them" in labels


def test_the_page_lists_the_films_to_review_by_ascending_quality(
    films: Chain, published: Manifest
) -> None:
    five = films.five(0.7)
    flagged = [{"quality": 0.4 - number / 100, "review": True} for number in range(12)]
    text = build(films, published, with_quality(films, five, flagged)).text
    rows = {row["id"]: row for row in five["evaluation"].rows(films.store)}
    names = [row["id"] for row in five["predictions"].rows(films.store)][:12]
    listed = [
        f"{name} {quality:.2f} {rows[name]['dice']:.3f} {rows[name]['split']}"
        for name, quality in ((names[n], 0.4 - n / 100) for n in range(11, 1, -1))
    ]
    assert f"Quality True Dice Split {' '.join(listed)} Flagged: 12 of 24 films" in text
    assert f"the {page.FLAGGED} of lowest quality are listed here" in text


def test_a_run_whose_films_need_no_review_says_so(films: Chain, published: Manifest) -> None:
    text = build(films, published, with_quality(films, films.five(0.7), [])).text
    assert "Flagged: 0 of 24 films." in text
    assert "True Dice" not in text


def test_a_flagged_films_name_is_shown_as_text(films: Chain, published: Manifest) -> None:
    row = {"id": HOSTILE, "quality": 0.1, "dice": None, "split": ""}
    quality = {"scored": 1, "flagged": 1, "lowest": [row]}
    page = build(films, published, films.five(0.7), quality=quality)
    assert HOSTILE in page.text
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert {tag for tag, _ in page.elements} & {"script"} == set()


def test_control_characters_in_a_films_name_are_shown_as_escapes(
    films: Chain, published: Manifest, source: bytes
) -> None:
    name = "肺\n\x1b[2J\u202egnp\u2066.png"
    row = {"id": name, "quality": 0.1, "dice": None, "split": ""}
    quality = {"scored": 1, "flagged": 1, "lowest": [row]}
    page = build(films, published, films.five(0.7), quality=quality)
    assert r"肺\n\x1b[2J\u202egnp\u2066.png" in page.text
    assert not {"\x1b", "\u202e", "\u2066"} & set(page.text)
    assert not re.search(r"\\n|\\x[0-9a-f]{2}", Page(source).text)


def test_the_page_names_the_sources_that_the_network_was_not_trained_on(
    films: Chain, published: Manifest, source: bytes
) -> None:
    assert "Trained on montgomery, tested on montgomery 8" in Page(source).text
    five = films.five(0.7, train_sources=["shenzhen"], train_films=9, val_films=3)
    text = build(films, published, five).text
    assert "Mean Dice" in text and "on 24 films the network never saw" in text
    assert "Trained on shenzhen, tested on montgomery, unseen 24" in text
    assert "The network was not trained on an unseen source: all its films are test films." in text


def test_the_page_names_the_sources_chosen_for_the_test(films: Chain, published: Manifest) -> None:
    five = films.five(0.7)
    config = five["evaluation"].config | {"test_sources": "montgomery"}
    five["evaluation"] = replace(five["evaluation"], config=config)
    assert "cover films of montgomery alone" in build(films, published, five).text


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        (None, "–"),
        ({"low": None, "high": None}, "–"),
        ({"low": 0.91234, "high": 0.95}, "0.912 to 0.950"),
    ],
)
def test_an_interval_has_two_ends_or_is_a_dash(figures: Any, words: str) -> None:
    assert page.interval(figures) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (12.34, "12.3 s"),
        (61, "1 min 01 s"),
        (3599.7, "1 h 00 min"),
        (7260, "2 h 01 min"),
    ],
)
def test_durations_are_written_in_seconds_minutes_or_hours(seconds: float, words: str) -> None:
    assert page.duration(seconds) == words


def test_a_count_has_its_noun_in_singular_or_plural() -> None:
    assert [page.number_of(count, "film") for count in (0, 1, 2400)] == [
        "0 films",
        "1 film",
        "2,400 films",
    ]


def test_a_long_value_is_cut_and_an_empty_one_is_a_dash() -> None:
    assert page.shorten("") == page.NOTHING
    assert page.shorten(0) == "0"
    assert page.shorten({"a": [1]}) == '{"a": [1]}'
    assert len(page.shorten("x" * 10_000)) == page.LONGEST_VALUE + 1


def test_a_letterboxed_film_is_shown_in_its_proportions_with_its_crop_black() -> None:
    """A film of 300 x 150, its upper third cropped, the rest bright and covered by the mask."""
    placement = geometry.Placement(300, 150, Box(100, 0, 300, 150), 64, Box(0, 8, 64, 56))
    square = np.zeros((64, 64), np.uint8)
    square[placement.box.slices] = 200
    predicted = np.zeros((300, 150), bool)
    files = {
        "image": encode.encode_png(square),
        "mask": encode.encode_mask(square > 0),
        "prediction": encode.encode_mask(predicted),
    }
    store: Any = SimpleNamespace(read=lambda uri, sha256: files[uri])
    manifest = SimpleNamespace(config={"size": 64}, uri_of=lambda key: key)
    manifests: Any = {"processed": manifest, "predictions": manifest}
    entries = {name: {"key": name, "sha256": ""} for name in files}
    record: Any = placement.numbers() | entries
    prediction: Any = {"mask": entries["prediction"]}
    overlay = page._overlay(store, manifests, record, prediction)
    assert overlay.shape == (560, 280, 3)
    assert not overlay[:180].any() and (overlay[195:550, 10:270] == 200).all()
    assert (overlay[186:188, 140] == masks.TRUTH_COLOR).all(axis=-1).any()
