"""A client of Airflow's REST API, for starting Airflow and following a run."""

from __future__ import annotations

import time
from typing import Any

import requests

# Seconds to connect, and to wait for an answer.
TIMEOUT = (5, 60)
# Seconds between two attempts of a request.
PAUSE_SECONDS = 2.0
LOG_IN = "/auth/token"
# Requests' errors after which the same request may get an answer.
PASSING = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
)


class RefusedError(Exception):
    """Airflow answered with an error; the message is its reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class NoAnswerError(requests.RequestException):
    """Airflow gave no answer for as long as the client waits."""


class Client:
    """A user's session with one Airflow. Every call raises RefusedError or requests' errors.

    A request without an answer, or with one of 500 or above, is repeated for `patience` seconds and
    then raises NoAnswerError: a caller's POST must be one that may come twice. Connections refused
    before the first answer are not repeated, as no Airflow runs there.
    """

    def __init__(self, url: str, user: str, password: str, *, patience: float = 0.0) -> None:
        self._url = url.rstrip("/")
        self._credentials = {"username": user, "password": password}
        self._patience = patience
        self._has_answered = False
        self._session = requests.Session()
        # Ignores the environment's proxy, which does not reach an Airflow on this machine.
        self._session.trust_env = False
        self._log_in()

    def get(self, path: str, **query: Any) -> Any:
        return self._call("GET", f"/api/v2{path}", params=query)

    def post(self, path: str, content: Any) -> Any:
        return self._call("POST", f"/api/v2{path}", json=content)

    def patch(self, path: str, content: Any) -> Any:
        return self._call("PATCH", f"/api/v2{path}", json=content)

    def _log_in(self) -> None:
        token = self._call("POST", LOG_IN, json=self._credentials)["access_token"]
        self._session.headers["Authorization"] = f"Bearer {token}"

    def _call(self, method: str, path: str, **options: Any) -> Any:
        answer = self._answer(method, path, **options)
        if answer.status_code == 401 and path != LOG_IN:
            # A token is valid for a day, and until Airflow restarts with other secrets.
            self._log_in()
            answer = self._answer(method, path, **options)
        if not answer.ok:
            raise RefusedError(answer.status_code, _reason(answer))
        return answer.json()

    def _answer(self, method: str, path: str, **options: Any) -> requests.Response:
        """Airflow's answer, waited for with patience; one line says that it waits."""
        limit, waits = time.monotonic() + self._patience, False
        while True:
            error: Exception | None = None
            try:
                answer = self._session.request(method, self._url + path, timeout=TIMEOUT, **options)
                self._has_answered = True
                if answer.status_code < 500:
                    return answer
                trouble = f"answers with {answer.status_code}"
            except PASSING as caught:
                error, trouble = caught, _trouble(caught)
            if time.monotonic() >= limit or (error and not self._may_answer(error)):
                raise NoAnswerError(f"Airflow at {self._url} {trouble}") from error
            if not waits:
                print(
                    f"{time.strftime('%H:%M:%S')}  Airflow at {self._url} {trouble}: trying again "
                    f"for {self._patience:g} s",
                    flush=True,
                )
            waits = True
            time.sleep(PAUSE_SECONDS)

    def _may_answer(self, error: Exception) -> bool:
        return self._has_answered or isinstance(error, requests.ReadTimeout)


def _trouble(error: Exception) -> str:
    if isinstance(error, requests.ReadTimeout):
        return f"gives no answer within {TIMEOUT[1]} s"
    if "refused" in str(error):
        return "refuses connections"
    return "breaks the connection"


def _reason(answer: requests.Response) -> str:
    """One line from an error's body, whose `detail` is a text or a list of errors by field."""
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = answer.text
    if isinstance(detail, list):
        detail = "; ".join(
            f"{'.'.join(map(str, item.get('loc', [])))}: {item.get('msg')}" for item in detail
        )
    # Airflow appends the whole JSON schema to the error.
    text = str(detail).partition("\n\nFailed validating")[0]
    return " ".join(text.split()) or answer.reason
