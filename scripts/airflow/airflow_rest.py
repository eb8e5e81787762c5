"""A client of Airflow's REST API, for starting Airflow and following a run."""

from __future__ import annotations

from typing import Any

import requests

# Seconds to connect, and to wait for an answer.
TIMEOUT = (5, 60)


class RefusedError(Exception):
    """Airflow answered with an error; the message is its reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Client:
    """A user's session with one Airflow. Every call raises RefusedError or requests' errors."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self._url = url.rstrip("/")
        self._session = requests.Session()
        # Ignores the environment's proxy, which does not reach an Airflow on this machine.
        self._session.trust_env = False
        credentials = {"username": user, "password": password}
        token = self._call("POST", "/auth/token", json=credentials)["access_token"]
        self._session.headers["Authorization"] = f"Bearer {token}"

    def get(self, path: str, **query: Any) -> Any:
        return self._call("GET", f"/api/v2{path}", params=query)

    def post(self, path: str, content: Any) -> Any:
        return self._call("POST", f"/api/v2{path}", json=content)

    def patch(self, path: str, content: Any) -> Any:
        return self._call("PATCH", f"/api/v2{path}", json=content)

    def _call(self, method: str, path: str, **options: Any) -> Any:
        answer = self._session.request(method, self._url + path, timeout=TIMEOUT, **options)
        if not answer.ok:
            raise RefusedError(answer.status_code, _reason(answer))
        return answer.json()


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
