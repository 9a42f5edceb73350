"""A small client of Airflow's public REST API (v2): un-pause, trigger, look. Imports no Airflow."""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

from fedcore.errors import ServiceError
from fedcore.types import Json


class AirflowApi:
    """One Airflow, spoken to as one user; logs in when first needed and again when the token is too old."""

    def __init__(self, url: str, user: str, password: str, *, timeout_s: float = 90.0) -> None:
        self.url = url.rstrip("/")
        self._login = {"username": user, "password": password}
        self._timeout_s = timeout_s
        self._token: str | None = None

    def unpause(self, dag: str) -> None:
        """Let the scheduler run `dag`."""
        self._call("PATCH", f"dags/{_quote(dag)}", {"is_paused": False})

    def dags(self) -> list[str]:
        """Names of the DAGs that Airflow has read so far."""
        return [dag["dag_id"] for dag in self._call("GET", "dags?limit=200")["dags"]]

    def import_errors(self) -> dict[str, str]:
        """DAG files that Airflow could not read, with the last line of why."""
        errors = self._call("GET", "importErrors")["import_errors"]
        return {error["filename"]: error["stack_trace"].strip().splitlines()[-1] for error in errors}

    def trigger(self, dag: str, conf: Mapping[str, Json], run_id: str | None = None) -> str:
        """The id of the new run of `dag`, or `run_id` when a run of that id is there already."""
        body: dict[str, Json] = {"logical_date": None, "conf": dict(conf)}
        if run_id:
            body["dag_run_id"] = run_id
        try:
            answer = self._call("POST", f"dags/{_quote(dag)}/dagRuns", body)
        except Conflict:
            return str(run_id)
        return str(answer["dag_run_id"])

    def dag_run(self, dag: str, run_id: str) -> dict[str, Any] | None:
        """Facts of one run, None when there is none."""
        try:
            run: dict[str, Any] = self._call("GET", f"dags/{_quote(dag)}/dagRuns/{_quote(run_id)}")
            return run
        except NotThere:
            return None

    def dag_runs(self, dag: str, *, prefix: str = "") -> list[dict[str, Any]]:
        """Facts of the newest runs of `dag` whose id starts with `prefix`, oldest first."""
        query = urllib.parse.urlencode({"limit": 100, "order_by": "-run_after"})
        runs = self._call("GET", f"dags/{_quote(dag)}/dagRuns?{query}")["dag_runs"]
        return [run for run in reversed(runs) if run["dag_run_id"].startswith(prefix)]

    def tasks(self, dag: str, run_id: str) -> dict[str, dict[str, Any]]:
        """Facts of the tasks of one run (state, start_date, end_date, try_number …), by task id."""
        path = f"dags/{_quote(dag)}/dagRuns/{_quote(run_id)}/taskInstances?limit=100"
        return {task["task_id"]: task for task in self._call("GET", path)["task_instances"]}

    def result(self, dag: str, run_id: str, task: str, key: str = "return_value") -> Json:
        """What a task left under `key`, None when it left nothing."""
        path = f"dags/{_quote(dag)}/dagRuns/{_quote(run_id)}/taskInstances/{_quote(task)}/xcomEntries/{_quote(key)}"
        try:
            return self._call("GET", f"{path}?deserialize=false&stringify=false")["value"]
        except NotThere:
            return None

    def log(self, dag: str, run_id: str, task: str, try_number: int) -> list[str]:
        """The log lines of one try of a task; an exception's line ends with what it said."""
        path = f"dags/{_quote(dag)}/dagRuns/{_quote(run_id)}/taskInstances/{_quote(task)}/logs/{try_number}"
        content = self._call("GET", f"{path}?full_content=true")["content"]
        return [_words(line) for line in content]

    def grid(self, dag: str) -> str:
        """The address of the page that shows the runs of `dag` as columns."""
        return f"{self.url}/dags/{_quote(dag)}"

    def _call(self, method: str, path: str, body: Json = None) -> Json:
        for attempt in ("first", "renewed"):
            token = self._token = self._token or self._log_in()
            try:
                return self._send(method, f"/api/v2/{path}", body, {"Authorization": f"Bearer {token}"})
            except _Unauthorized:
                self._token = None
                if attempt == "renewed":
                    raise
        raise AssertionError("unreachable")

    def _log_in(self) -> str:
        return str(self._send("POST", "/auth/token", self._login, {})["access_token"])

    def _send(self, method: str, path: str, body: Json, headers: Mapping[str, str]) -> Json:
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Accept": "application/json", **headers},
        )
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                raise _refusal(method, path, error.code, _detail(error.read())) from None
        except OSError as error:
            why = getattr(error, "reason", error)
            raise ServiceError(
                f"Airflow at {self.url} does not answer ({why}); start it with: fedcore up"
            ) from None


class Conflict(ServiceError):
    """The thing to be made is there already."""


class NotThere(ServiceError):
    """The thing asked for is not there."""


class _Unauthorized(ServiceError):
    """Airflow wants another token or password."""


def _refusal(method: str, path: str, code: int, detail: str) -> ServiceError:
    kind = {409: Conflict, 404: NotThere, 401: _Unauthorized}.get(code, ServiceError)
    return kind(
        f"Airflow refused {method} {path.split('?', maxsplit=1)[0]} with {code}: {detail}; see its api-server log"
    )


def _detail(body: bytes) -> str:
    try:
        return str(json.loads(body)["detail"])[:300]
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace")


def _words(line: Json) -> str:
    if isinstance(line, str):
        return line
    said = [str(detail.get("exc_value")) for detail in line.get("error_detail") or ()]
    return ": ".join([str(line.get("event", "")), *said])


def _quote(part: str) -> str:
    return urllib.parse.quote(part, safe="")
