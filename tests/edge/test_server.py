import http.server
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvicorn

from fedcore.edge import server as server_module
from fedcore.edge.bundle import publish
from fedcore.edge.health import ask_health, wait_until_serving
from fedcore.edge.model import EdgeModel
from fedcore.edge.runtime import Device
from fedcore.edge.server import create_app, listen, serve
from fedcore.errors import BundleRefused, ServiceError

RUN = "import sys; sys.argv[0] = 'fedcore'; from fedcore.cli.edge import app; app()"
DEADLINE = 60


def _arguments(repo: object, root: Path, home: Path, port: int = 0) -> list[str]:
    options = {"--repo": repo, "--root": root, "--home": home, "--port": port, "--poll": 0.1}
    return [
        sys.executable,
        "-c",
        RUN,
        "run",
        "--json",
        *(str(part) for pair in options.items() for part in pair),
    ]


@contextmanager
def _running(repo: object, root: Path, home: Path) -> Iterator[tuple[subprocess.Popen, str]]:
    """A real device process and its address."""
    with subprocess.Popen(
        _arguments(repo, root, home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        try:
            ready, _, _ = select.select([run.stdout], [], [], DEADLINE)
            line = run.stdout.readline() if ready else ""
            assert line, run.stderr.read() if run.poll() is not None else "the device said nothing"
            yield run, json.loads(line)["url"]
        finally:
            run.kill()
            run.wait(10)


@pytest.fixture(scope="module")
def served(tmp_path_factory, bundles, keys) -> Iterator[tuple[str, Path]]:
    """Address of a device that serves version 1, and its repository."""
    folder = tmp_path_factory.mktemp("served")
    publish(bundles[1], folder / "repo", keys, 1)
    with _running(folder / "repo", keys / "root.json", folder / "home") as (_, url):
        wait_until_serving(url, 1, DEADLINE)
        yield url, folder / "repo"


@pytest.fixture(scope="module")
def inside(tmp_path_factory, bundles, keys) -> Iterator[str]:
    """Address of a device of version 1 that is served by a thread of this process."""
    folder = tmp_path_factory.mktemp("inside")
    publish(bundles[1], folder / "repo", keys, 1)
    device = Device(folder / "home", folder / "repo", keys / "root.json")
    with listen("127.0.0.1", 0) as listener:
        server = uvicorn.Server(uvicorn.Config(create_app(device, 0.05), log_config=None, lifespan="on"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            wait_until_serving(url, 1, DEADLINE)
            yield url
        finally:
            server.should_exit = True
            thread.join(20)
            device.close()


def test_predictions_and_health_over_http(served, rows, bundles):
    url, _ = served
    answer = httpx.post(f"{url}/predict", json={"rows": rows})
    assert answer.status_code == 200
    assert answer.json()["version"] == 1
    np.testing.assert_allclose(answer.json()["scores"], EdgeModel.load(bundles[1]).predict(rows), atol=1e-6)
    health = httpx.get(f"{url}/health").json()
    assert health["status"] == "serving"
    assert health["version"] == 1
    assert len(health["sha256"]) == 64
    assert health["name"] == "toy"
    assert health["last_error"] is None
    assert health["predictions"] >= 2
    assert "JFK" not in json.dumps(health)


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        (b"", 400, "not JSON"),
        (b"{", 400, "not JSON"),
        (b"\xff\xfe", 400, "not JSON"),
        (b'{"rows": [NaN]}', 400, "NaN is not JSON"),
        (b"[" * 100_000, 400, "not JSON"),
        (b"[]", 422, "must be"),
        (b'{"rows": [], "more": 1}', 422, "nothing else"),
        (b'{"rows": {}}', 422, "must be"),
        (b'{"rows": []}', 422, "no rows"),
        (b'{"rows": [1]}', 422, "row 0 is a int"),
        (b'{"rows": [{"distance": "far", "wind": 1, "origin": "JFK"}]}', 422, "row 0, column 'distance'"),
        (b'{"rows": [{"distance": 1, "wind": 1}]}', 422, "'origin' is missing"),
        (
            b'{"rows": [{"distance": 1, "wind": 1, "origin": "JFK", "%s": 1}]}' % (b"x" * 9000),
            422,
            "unknown column",
        ),
        (json.dumps({"rows": [1] * 1001}).encode(), 413, "1001 rows are too many"),
        (b" " * (1 << 20) + b"{}", 413, "larger than 1048576 bytes"),
    ],
)
def test_a_bad_request_gets_one_sentence_and_its_status(inside, body, status, sentence):
    answer = httpx.post(f"{inside}/predict", content=body)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert sentence in answer.json()["error"]
    assert len(answer.json()["error"]) < 600


def test_an_unknown_path_or_method_gets_a_sentence_too(inside):
    for answer, status in (
        (httpx.get(f"{inside}/nothing"), 404),
        (httpx.get(f"{inside}/predict"), 405),
    ):
        assert answer.status_code == status
        assert list(answer.json()) == ["error"]


def test_a_body_without_a_length_is_cut_at_the_cap(inside):
    chunks = (b" " * 65_536 for _ in range(64))
    answer = httpx.post(f"{inside}/predict", content=chunks)
    assert answer.status_code == 413


def test_a_request_that_is_cut_off_does_no_harm(served):
    host, port = re.fullmatch(r"http://(.*):(\d+)", served[0]).groups()
    with socket.create_connection((host, int(port))) as cut:
        cut.sendall(b"POST /predict HTTP/1.1\r\nHost: edge\r\nContent-Length: 1000\r\n\r\n{")
    assert ask_health(served[0])["status"] == "serving"


def test_a_body_that_trickles_is_refused_in_time(inside, monkeypatch):
    monkeypatch.setattr(server_module, "BODY_S", 0.05)
    host, port = re.fullmatch(r"http://(.*):(\d+)", inside).groups()
    with socket.create_connection((host, int(port)), timeout=DEADLINE) as slow:
        slow.sendall(b"POST /predict HTTP/1.1\r\nHost: edge\r\nContent-Length: 1000\r\n\r\n{")
        assert b"408" in slow.recv(1000)


def test_a_body_that_is_cut_off_in_this_process_does_no_harm(inside):
    host, port = re.fullmatch(r"http://(.*):(\d+)", inside).groups()
    with socket.create_connection((host, int(port))) as cut:
        cut.sendall(b"POST /predict HTTP/1.1\r\nHost: edge\r\nContent-Length: 1000\r\n\r\n{")
    assert ask_health(inside)["status"] == "serving"


def test_serving_in_this_process_ends_at_sigterm_and_leaves_the_signals_as_they_were(
    tmp_path, repo, root, rows
):
    device, answers = Device(tmp_path / "home", repo, root), []
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

    def ask(url: str) -> None:
        try:
            wait_until_serving(url, 1, DEADLINE)
            answers.append(httpx.post(f"{url}/predict", json={"rows": rows}).status_code)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    threads: list[threading.Thread] = []

    def ready(url: str) -> None:
        threads.append(threading.Thread(target=ask, args=(url,)))
        threads[0].start()

    serve(device, "127.0.0.1", 0, 0.1, ready)
    threads[0].join()
    device.close()
    assert answers == [200]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_many_clients_at_once_all_get_the_right_answer(served, rows, bundles):
    expected = EdgeModel.load(bundles[1]).predict(rows)
    wrong: list[object] = []

    def ask() -> None:
        with httpx.Client() as client:
            for _ in range(20):
                answer = client.post(f"{served[0]}/predict", json={"rows": rows})
                if answer.status_code != 200 or not np.allclose(answer.json()["scores"], expected, atol=1e-6):
                    wrong.append(answer.text)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_description_of_the_port_is_machine_readable(inside):
    paths = httpx.get(f"{inside}/openapi.json").json()["paths"]
    assert set(paths) == {"/predict", "/health"}


def test_a_taken_port_is_named_in_a_sentence(served):
    port = int(served[0].rsplit(":", 1)[1])
    with pytest.raises(ServiceError, match=f"cannot listen on 127.0.0.1:{port}: .*in use; choose another"):
        listen("127.0.0.1", port)
    with pytest.raises(ServiceError, match="cannot listen on"):
        listen("no such host", 0)


def test_a_running_device_takes_up_a_new_version_and_refuses_a_bad_one(
    tmp_path, repo, root, keys, bundles, rows
):
    with _running(repo, root, tmp_path / "home") as (run, url):
        assert wait_until_serving(url, 1, DEADLINE)["status"] == "serving"
        publish(bundles[2], repo, keys, 2)
        wait_until_serving(url, 2, DEADLINE)
        publish(bundles[3], repo, keys, 3)
        (model,) = (repo / "targets" / "3").glob("*.model.onnx")
        model.write_bytes(model.read_bytes()[::-1])
        with pytest.raises(BundleRefused, match="serves version 2 after 1 s instead of 3"):
            wait_until_serving(url, 3, 1)
        assert httpx.post(f"{url}/predict", json={"rows": rows}).json()["version"] == 2
        assert "tampered" in ask_health(url)["last_error"] or ask_health(url)["version"] == 2
        run.send_signal(signal.SIGTERM)
        out, errors = run.communicate(timeout=20)
        assert (run.returncode, out, errors) == (0, "", "")


def test_a_device_without_a_model_says_so_and_takes_the_first_that_comes(tmp_path, keys, root, bundles, rows):
    with _running(tmp_path / "repo", root, tmp_path / "home") as (run, url):
        assert ask_health(url)["status"] == "empty"
        answer = httpx.post(f"{url}/predict", json={"rows": rows})
        assert answer.status_code == 503
        assert "no model yet" in answer.json()["error"]
        publish(bundles[1], tmp_path / "repo", keys, 1)
        wait_until_serving(url, 1, DEADLINE)
        run.send_signal(signal.SIGINT)
        assert run.wait(20) == 0


def test_no_device_is_a_sentence():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ServiceError, match=f"no edge device answers at http://127.0.0.1:{port}/health"):
        wait_until_serving(f"http://127.0.0.1:{port}", 1, 0.3)
    with pytest.raises(ServiceError, match="must start with http"):
        ask_health("file:///etc/passwd")


class _Stalling(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; sends half of any file whose name holds `where`, then nothing more."""

    where = "nothing"
    stalled = threading.Event()
    go_on = threading.Event()

    def copyfile(self, source, outputfile) -> None:
        data = source.read()
        if type(self).where in self.path:
            outputfile.write(data[: len(data) // 2])
            outputfile.flush()
            self.stalled.set()
            self.go_on.wait(DEADLINE)
            return
        outputfile.write(data)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def _stalling(folder: Path, where: str) -> Iterator[tuple[str, type[_Stalling]]]:
    handler = type(
        "Stalling", (_Stalling,), {"where": where, "stalled": threading.Event(), "go_on": threading.Event()}
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", handler
        finally:
            handler.go_on.set()
            server.shutdown()
            thread.join()


PLACES = ["timestamp.json", "snapshot.json", "targets.json", "champion.json", "schema.json", "manifest.json"]


@pytest.mark.parametrize(
    "where", ["model.onnx", *(pytest.param(place, marks=pytest.mark.slow) for place in PLACES)]
)
def test_a_device_killed_in_a_download_still_serves_and_takes_up_the_new_version_later(
    tmp_path, repo, root, keys, bundles, rows, where
):
    home = tmp_path / "home"
    device = Device(home, repo, root)
    device.refresh()
    before, _ = device.predict(rows)
    device.close()
    publish(bundles[2], repo, keys, 2)
    with _stalling(repo, where) as (address, handler), _running(address, root, home) as (run, url):
        assert handler.stalled.wait(DEADLINE)
        answer = httpx.post(f"{url}/predict", json={"rows": rows}).json()
        assert answer["version"] == 1, "the old model serves while the new one loads"
        os.kill(run.pid, signal.SIGKILL)
        run.wait(10)
    again = Device(home, repo, root)
    scores, version = again.predict(rows)
    assert version == 1
    assert np.array_equal(scores, before)
    assert again.health().status == "serving"
    assert again.refresh()
    assert again.predict(rows)[1] == 2
    assert sorted(path.name[:2] for path in (home / "versions").iterdir()) == ["1-", "2-"]
    again.close()


def test_a_device_killed_between_download_and_swap_serves_the_old_version(
    tmp_path, repo, root, keys, bundles, rows
):
    home = tmp_path / "home"
    device = Device(home, repo, root)
    device.refresh()
    current = (home / "current").read_bytes()
    publish(bundles[2], repo, keys, 2)
    device.refresh()
    device.close()
    (home / "current").write_bytes(current)  # the swap's one move undone
    shutil.copytree(next((home / "versions").glob("2-*")), home / "versions" / "2-left.part")
    again = Device(home, repo, root)
    assert again.predict(rows)[1] == 1
    assert again.refresh()
    assert again.predict(rows)[1] == 2
    assert not list((home / "versions").glob("*.part"))
    again.close()


def test_a_repository_over_http_feeds_a_device(tmp_path, repo, root, rows):
    with _stalling(repo, "nothing") as (address, _):
        device = Device(tmp_path / "home", address, root)
        assert device.refresh()
        assert device.predict(rows)[1] == 1
    with pytest.raises(ServiceError, match="cannot be reached"):
        device.refresh()
    assert device.predict(rows)[1] == 1
    device.close()
