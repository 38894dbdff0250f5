"""The little of Tryton's JSON-RPC that a workstation needs: sign in, call a model's method, sign out.

The protocol is Tryton 7.0's (trytond/protocols): a POST of {"id", "method", "params"} to /DATABASE/, the session as an
`Authorization: Session` header.
"""

import base64
import http.client
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from .errors import HospitalError

LARGEST_ANSWER = 8 << 20


@dataclass(frozen=True)
class Session:
    """Where the record is, and as whom; `timeout` is in seconds and holds for each call."""

    host: str
    port: int
    database: str
    timeout: float
    authorization: str = ""

    @classmethod
    def sign_in(cls, *, host: str, port: int, database: str, user: str, secret: str, timeout: float) -> Self:
        """Raises HospitalError when the record does not answer or does not accept the user."""
        stranger = cls(host, port, database, timeout)
        answer = stranger.call("common.db.login", user, {"password": secret}, "en")
        match answer:
            case [int(number), str(key), *_]:
                token = base64.b64encode(f"{user}:{number}:{key}".encode()).decode()
                return cls(host, port, database, timeout, f"Session {token}")
        raise HospitalError("cannot sign in to the record: it did not open a session")

    def sign_out(self) -> None:
        self.call("common.db.logout")

    def model(self, model: str, method: str, *params: object) -> Any:
        """One method of a model, in the context of an empty set of preferences."""
        return self.call(f"model.{model}.{method}", *params, {})

    def search_read(self, model: str, domain: Sequence[object], fields: Sequence[str]) -> list[dict[str, Any]]:
        """The fields of all records that match."""
        rows = self.model(model, "search_read", domain, 0, None, None, fields)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise HospitalError(f"cannot read {model}: the record answered something else than a list")
        return rows

    def call(self, method: str, *params: object) -> Any:
        """The result of one remote call; what the server refuses or fails becomes a HospitalError."""
        request = json.dumps({"id": 1, "method": method, "params": params})
        headers = {"Content-Type": "application/json"}
        if self.authorization:
            headers["Authorization"] = self.authorization
        connection = http.client.HTTPConnection(self.host, self.port, timeout=self.timeout)
        try:
            connection.request("POST", f"/{self.database}/", request, headers)
            response = connection.getresponse()
            untrusted_text = response.read(LARGEST_ANSWER)
        except (OSError, http.client.HTTPException) as error:
            raise HospitalError(f"cannot reach the record at {self.host}:{self.port}: {error}") from error
        finally:
            connection.close()
        if response.status == http.HTTPStatus.UNAUTHORIZED:
            raise HospitalError("cannot sign in to the record: it refuses this user or password")
        try:
            answer = json.loads(untrusted_text)
        except ValueError as error:
            raise HospitalError(f"cannot call {method}: the record answered HTTP {response.status}") from error
        if isinstance(answer, dict) and answer.get("error"):
            raise HospitalError(f"cannot call {method}: {first_words(answer['error'])}")
        return answer.get("result") if isinstance(answer, dict) else answer


def first_words(untrusted_error: object) -> str:
    """A server's error is [kind, details] or [message, traceback]: the part for people."""
    match untrusted_error:
        case [str(kind), [str(message), *_], *_]:
            return f"{kind}: {message}"[:300]
        case [str(message), *_]:
            return message[:300]
    return str(untrusted_error)[:300]
