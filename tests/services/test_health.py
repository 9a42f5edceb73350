"""Health over HTTP and the choice of ports."""

import json
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fedcore.errors import ServiceError
from fedcore.services.health import airflow_part_beats, answers, choose_port


@contextmanager
def serving(pages: dict[str, tuple[int, str]]):
    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            code, body = pages.get(self.path, (404, ""))
            self.send_response(code)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *args):
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


@contextmanager
def taken():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


def test_a_success_is_an_answer_and_an_error_is_none():
    with serving({"/health": (200, "OK"), "/broken": (500, "")}) as url:
        assert answers(f"{url}/health") is None
        assert "answers 500" in answers(f"{url}/broken")
    assert "does not answer" in answers(f"{url}/health")


def health(beat: str | None) -> dict[str, tuple[int, str]]:
    return {"/api/v2/monitor/health": (200, json.dumps({"scheduler": {"latest_scheduler_heartbeat": beat}}))}


def test_only_a_heartbeat_after_the_start_counts():
    with serving(health("2026-01-01T00:01:00+00:00")) as url:
        assert airflow_part_beats(url, "scheduler", since=1767225600.0) is None
        assert "no heartbeat" in airflow_part_beats(url, "scheduler", since=1767225700.0)
        assert "does not answer" in airflow_part_beats(url, "triggerer", since=0.0)
    with serving(health(None)) as url:
        assert "no heartbeat" in airflow_part_beats(url, "scheduler", since=0.0)


def test_a_port_that_was_asked_for_and_is_taken_is_refused_by_number():
    with taken() as port, pytest.raises(ServiceError, match=f"port {port} for mlflow is taken"):
        choose_port("mlflow", port, None)


def test_the_port_of_last_time_is_used_again_unless_somebody_took_it():
    with taken() as port:
        assert choose_port("mlflow", None, port) != port
    assert choose_port("mlflow", None, port) == port
    assert choose_port("mlflow", port, None) == port
