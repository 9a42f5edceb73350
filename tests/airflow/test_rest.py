"""The client of Airflow's REST API against a scripted server; a real Airflow is in `tests/dags`."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from fedcore.airflow.rest import AirflowApi
from fedcore.errors import ServiceError


class Script:
    """Answers by (method, path); remembers what was sent."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], list[tuple[int, object]]] = {}
        self.sent: list[tuple[str, str, object]] = []

    def on(self, method: str, path: str, *answers: tuple[int, object]) -> None:
        self.answers[method, path] = list(answers)

    def next(self, method: str, path: str) -> tuple[int, object]:
        waiting = self.answers.get((method, path), [(404, {"detail": "nothing there"})])
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]


@contextmanager
def serving(script: Script) -> Iterator[str]:
    class Page(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = urlsplit(self.path).path
            script.sent.append((self.command, path, json.loads(body) if body else None))
            code, answer = script.next(self.command, path)
            self.send_response(code)
            self.end_headers()
            self.wfile.write(answer if isinstance(answer, bytes) else json.dumps(answer).encode())

        do_GET = do_POST = do_PATCH = _answer  # noqa: N815

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def script() -> Script:
    script = Script()
    script.on("POST", "/auth/token", (201, {"access_token": "a token"}))
    return script


@pytest.fixture
def api(script) -> Iterator[AirflowApi]:
    with serving(script) as url:
        yield AirflowApi(url + "/", "admin", "secret")


def test_a_dag_is_triggered_under_its_run_id_without_a_logical_date(script, api):
    script.on("POST", "/api/v2/dags/training/dagRuns", (200, {"dag_run_id": "mine"}))
    assert api.trigger("training", {"run": "mine"}, "mine") == "mine"
    assert script.sent[-1][2] == {"logical_date": None, "conf": {"run": "mine"}, "dag_run_id": "mine"}
    assert api.trigger("training", {}) == "mine"
    assert "dag_run_id" not in script.sent[-1][2]


def test_triggering_a_run_that_is_there_is_no_error(script, api):
    script.on("POST", "/api/v2/dags/training/dagRuns", (409, {"detail": "it exists"}))
    assert api.trigger("training", {}, "mine") == "mine"


def test_it_logs_in_once_and_again_when_the_token_is_too_old(script, api):
    script.on("PATCH", "/api/v2/dags/training", (200, {}), (401, {"detail": "too old"}), (200, {}))
    api.unpause("training")
    api.unpause("training")
    assert [path for _, path, _ in script.sent].count("/auth/token") == 2


def test_a_wrong_password_is_an_error_in_a_sentence(script, api):
    script.on("POST", "/auth/token", (401, {"detail": "Invalid credentials"}))
    with pytest.raises(ServiceError, match="401: Invalid credentials"):
        api.dags()


def test_a_token_that_is_never_accepted_ends_in_an_error(script, api):
    script.on("GET", "/api/v2/dags", (401, {"detail": "no"}))
    with pytest.raises(ServiceError, match="refused GET /api/v2/dags with 401: no"):
        api.dags()


def test_what_is_not_there_is_none(api):
    assert api.dag_run("training", "gone") is None
    assert api.result("training", "gone", "open_run") is None


def test_facts_of_runs_tasks_results_and_logs(script, api):
    runs = [{"dag_run_id": "b__r0001"}, {"dag_run_id": "a__r0001"}, {"dag_run_id": "a__r0000"}]
    script.on("GET", "/api/v2/dags/round/dagRuns", (200, {"dag_runs": runs}))
    assert [run["dag_run_id"] for run in api.dag_runs("round", prefix="a__")] == ["a__r0000", "a__r0001"]
    script.on("GET", "/api/v2/dags/round/dagRuns/r%2F0", (200, {"state": "success"}))
    assert api.dag_run("round", "r/0") == {"state": "success"}
    base = "/api/v2/dags/round/dagRuns/r/taskInstances"
    script.on("GET", base, (200, {"task_instances": [{"task_id": "select", "state": "success"}]}))
    assert api.tasks("round", "r")["select"]["state"] == "success"
    script.on("GET", f"{base}/decide/xcomEntries/return_value", (200, {"value": {"done": True}}))
    assert api.result("round", "r", "decide") == {"done": True}
    script.on(
        "GET",
        f"{base}/decide/logs/2",
        (200, {"content": ["one", {"event": "two", "error_detail": [{"exc_value": "three"}]}]}),
    )
    assert api.log("round", "r", "decide", 2) == ["one", "two: three"]
    errors = [{"filename": "x_dag.py", "stack_trace": "Traceback\n  line\nNameError: x\n"}]
    script.on("GET", "/api/v2/importErrors", (200, {"import_errors": errors}))
    assert api.import_errors() == {"x_dag.py": "NameError: x"}
    assert api.grid("round").endswith("/dags/round")


def test_an_answer_that_is_not_json_is_quoted(script, api):
    script.on("GET", "/api/v2/dags", (500, b"<html>broken</html>"))
    with pytest.raises(ServiceError, match="500: <html>broken"):
        api.dags()


def test_a_silent_airflow_is_named():
    with pytest.raises(ServiceError, match=r"Airflow at http://127\.0\.0\.1:9 does not answer"):
        AirflowApi("http://127.0.0.1:9", "admin", "secret", timeout_s=2).dags()


def test_the_page_of_an_mlflow_run_is_linked_when_the_server_knows_it(script):
    pytest.importorskip("airflow")
    from fedcore.airflow.links import mlflow_run_url

    script.on("GET", "/api/2.0/mlflow/runs/get", (200, {"run": {"info": {"experiment_id": "7"}}}), (404, {}))
    with serving(script) as url:
        assert (
            mlflow_run_url(f"{url}/", "ab") == f"{url}/#/experiments/7/runs/ab?workflowType=machine_learning"
        )
        assert mlflow_run_url(url, "gone") == ""
    assert mlflow_run_url("sqlite:///somewhere/mlflow.db", "ab") == ""
    assert mlflow_run_url(None, None) == ""
