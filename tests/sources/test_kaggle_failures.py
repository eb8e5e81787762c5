"""Each line of the table that `python -m tests.support.kaggle_failures` prints."""

from __future__ import annotations

import pytest

from tests.support.kaggle_failures import ARCHIVE, Row, rows, table

# Bytes of a member's byte range.
MEMBER = 1_000_042
# Bytes that a cut loses at most.
CHUNK = 2**16
# {case: (attempts, most bytes resent)}
RETRIED = {
    "body cut after 500,000 bytes": (2, CHUNK),
    "body cut ten times": (11, 10 * CHUNK),
    "directory cut": (2, CHUNK),
    "storage URL expired (403, a page)": (2, 0),
    "body cut, then URL expired twice": (4, CHUNK),
    "storage 503, 500, 429 with Retry-After": (4, 0),
    "flipped byte: CRC-32 differs once": (2, MEMBER),
    "no ranges": (1, 0),
    "no ranges, body cut": (2, 500_000),
    "no ranges, wrong md5 once": (2, len(ARCHIVE)),
    "no ranges, no md5, flipped byte once": (2, len(ARCHIVE)),
    "429 with Retry-After 30 s": (2, 0),
    "500, then 503": (3, 0),
    "a proxy's page in place of JSON": (2, 0),
}
# {case: (attempts, exit code, words of the message)}
ENDED = {
    "flipped byte every time": (2, "65", "member 'images/0.png' is damaged"),
    "archive replaced while it is read": (1, "75", "was changed while it was read"),
    "no ranges, wrong md5 every time": (6, "69", "not delivered after 5 retries"),
    "429 with Retry-After a day": (1, "69", "not delivered after 0 retries"),
    "503 for good": (6, "69", "not delivered after 5 retries"),
    "401, no valid token": (1, "77", "create a token at"),
    "403, terms not accepted": (1, "77", "accept the terms at https://www.kaggle.com/datasets/"),
    "404, no such dataset": (1, "2", "no such dataset or version"),
}


@pytest.fixture(scope="module")
def results() -> dict[str, Row]:
    return {row.case: row for row in rows()}


def test_every_case_has_an_expected_result(results: dict[str, Row]) -> None:
    assert results.keys() == RETRIED.keys() | ENDED.keys()
    assert len(table(list(results.values())).splitlines()) == len(results) + 1


@pytest.mark.parametrize("case", RETRIED)
def test_a_temporary_failure_is_retried_and_little_is_sent_twice(
    results: dict[str, Row], case: str
) -> None:
    attempts, most_resent = RETRIED[case]
    assert (results[case].outcome, results[case].attempts) == ("0", attempts)
    assert 0 <= results[case].resent <= most_resent


@pytest.mark.parametrize("case", ENDED)
def test_a_permanent_failure_ends_the_job_with_its_code_and_remedy(
    results: dict[str, Row], case: str
) -> None:
    attempts, code, words = ENDED[case]
    assert results[case].attempts == attempts
    assert results[case].outcome.startswith(code + " ")
    assert words in results[case].outcome
