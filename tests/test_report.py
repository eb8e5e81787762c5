"""report: one page that loads nothing, tells the truth and lets no name of a file act as code."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from jobs import report
from jobs.config import EvaluateConfig, PublishConfig
from jobs.manifest import Manifest
from jobs.stage import Stage
from tests.pages import Page
from tests.published import Chain, chain

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>&amp;{{ 7 * 7 }}.png"
LOADING = {"src", "href", "srcset", "data", "poster", "action", "xlink:href"}


@pytest.fixture(scope="module")
def made(s3: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    with chain(s3, tmp_path_factory.mktemp("films")) as built:
        yield built


@pytest.fixture(scope="module")
def published(made: Chain) -> Manifest:
    return made.publish(made.five(0.7), run_id="shown")


@pytest.fixture(scope="module")
def source(made: Chain, published: Manifest) -> bytes:
    return made.store.read(published.uri.replace("run.json", "report.html"))


def build(
    made: Chain,
    published: Manifest,
    five: Mapping[str, Manifest],
    details: Mapping[str, Any] | None = None,
) -> Page:
    """The page of other manifests, otherwise that of the published run."""
    about = made.store.read_json(published.details["model"] + "/model.json")
    uris: dict[str, Any] = {name: manifest.uri for name, manifest in five.items()}
    config = PublishConfig(out=made.out, run_id="shown", **uris)
    told = {**published.details, **(details or {})}
    return Page(report.build(made.store, five, told, about=about, config=config))


def test_the_page_loads_nothing_and_runs_nothing(source: bytes) -> None:
    for tag, attributes in Page(source).elements:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base", "form"}
        for name, value in attributes.items():
            assert not name.startswith("on") and name != "style"
            assert name not in LOADING or str(value).startswith("data:image/jpeg;base64,")
    style = re.findall(r"<style>(.*?)</style>", source.decode(), re.S)
    assert len(style) == 1
    assert "url(" not in style[0] and "@import" not in style[0]


def test_the_page_forbids_what_it_does_not_hold(source: bytes) -> None:
    (policy,) = (
        attributes["content"]
        for tag, attributes in Page(source).elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_the_pictures_are_whole_and_have_a_text_for_those_who_do_not_see_them(
    source: bytes,
) -> None:
    pictures = [attributes for tag, attributes in Page(source).elements if tag == "img"]
    assert len(pictures) == report.SAMPLES + len(["contact sheet", "worst"])
    for attributes in pictures:
        packed = base64.b64decode(str(attributes["src"]).partition(",")[2])
        assert max(Image.open(io.BytesIO(packed)).size) >= 200
        assert attributes["alt"]


def test_the_page_tells_what_the_run_found(made: Chain, published: Manifest, source: bytes) -> None:
    text = Page(source).text
    test = json.loads(made.five(0.7)["evaluation"].read_file(made.store, "metrics.json"))["test"]
    assert f"Mean Dice {test['dice']['mean']:.3f} on 8 films" in text
    assert f"{test['dice']['p05']:.3f}, rests on the worst one or two" in text
    assert published.details["champion"]["reason"] in text
    assert "The first champion." in text
    assert "best 0.900, epoch 3" in text and "last 0.850, epoch 4" in text
    assert "24 films came in; 24 are used, 0 quarantined" in text
    assert "montgomery" in text and "Not for diagnosis." in text
    for job in published.details["jobs"]:
        assert job["content_hash"][:12] in text


def test_the_page_holds_no_figure_that_is_none(source: bytes) -> None:
    words = set(re.findall(r"\w+", Page(source).text))
    assert words & {"nan", "NaN", "None", "inf", "Undefined", "null"} == set()


def test_names_from_users_files_are_shown_and_never_obeyed(
    made: Chain, published: Manifest
) -> None:
    five = made.five(0.7)
    harmless = build(made, published, five)
    raw, processed = five["raw"], five["processed"]
    told: dict[str, Any] = {
        name: [HOSTILE] for name in ("without_mask", "masks_without_film", "copies")
    }
    told |= {"layouts": {HOSTILE: 1}, "ignored": {HOSTILE: 1}}
    named = {"reasons": {HOSTILE: 1}, "by_source": {f"{HOSTILE}/train": 1}}
    five["raw"] = replace(raw, details=raw.details | told)
    five["processed"] = replace(processed, details=processed.details | named)
    jobs = [job | {"config": {HOSTILE: HOSTILE}} for job in published.details["jobs"]]
    page = build(made, published, five, {"jobs": jobs})
    assert page.text.count(HOSTILE) >= 7 + 2 * len(jobs)
    grown = {tag for tag, _ in page.elements} - {tag for tag, _ in harmless.elements}
    assert grown == set()
    assert not any(name.startswith("on") for _, given in page.elements for name in given)


def test_whether_a_job_was_reused_is_told_only_where_it_is_known(
    made: Chain, published: Manifest, source: bytes
) -> None:
    assert "reused" not in Page(source).text
    jobs = [job | {"reused": job["job"] != "train"} for job in published.details["jobs"]]
    page = build(made, published, made.five(0.7), {"jobs": jobs})
    assert page.text.count("reused") == 4


def test_a_run_without_a_test_film_says_so(made: Chain, published: Manifest) -> None:
    five = made.five(0.7)
    stage = Stage(
        made.store,
        EvaluateConfig(
            predictions=five["predictions"].uri, processed=five["processed"].uri, out=made.out
        ),
        job="evaluate",
        folder="evaluations",
        recipe="none tested",
        inputs={name: five[name] for name in ("predictions", "processed", "raw")},
    )
    nothing = {"films": 0, "dice": None, "iou": None}
    metrics = {"test": nothing, "val": nothing, "train": nothing, "by_source": {}, "by_label": {}}
    stage.add_file("metrics.json", json.dumps(metrics).encode())
    stage.add_file("worst.png", five["evaluation"].read_file(made.store, "worst.png"))
    page = build(made, published, five | {"evaluation": stage.finish(counts={}, headline={})})
    assert "No test film was scored" in page.text
    assert sum(tag == "img" for tag, _ in page.elements) == 1


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
def test_durations_are_written_as_people_say_them(seconds: float, words: str) -> None:
    assert report.duration(seconds) == words


def test_counts_carry_their_noun() -> None:
    assert [report.number_of(count, "film") for count in (0, 1, 2400)] == [
        "0 films",
        "1 film",
        "2,400 films",
    ]


def test_a_long_value_is_cut_and_an_empty_one_is_a_dash() -> None:
    assert report.shorten("") == report.NOTHING
    assert report.shorten(0) == "0"
    assert report.shorten({"a": [1]}) == '{"a": [1]}'
    assert len(report.shorten("x" * 10_000)) == report.LONGEST_VALUE + 1
