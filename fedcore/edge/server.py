"""The device's port: ``POST /predict`` and ``GET /health``, and a thread that looks for new versions.

Answers are JSON; an error is ``{"error": "one sentence"}`` with 400 (not JSON), 413 (too much),
422 (rows outside the schema) or 503 (no model yet). No request is logged.
"""

import asyncio
import json
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict
from errno import errorcode
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

import fedcore
from fedcore.edge.runtime import MAX_ROWS, Device
from fedcore.errors import BadInput, FedcoreError, ServiceError

MAX_BYTES = 1 << 20
BODY_S = 10  # seconds a request may take to arrive
SENTENCE = 500  # characters; an error may quote what was sent


class Poller:
    """A thread that refreshes `device` now and then every `seconds`, until stopped."""

    def __init__(self, device: Device, seconds: float) -> None:
        self._device, self._seconds = device, seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="refresh", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; a download under way is left behind after two seconds, which the home survives."""
        self._stop.set()
        self._thread.join(2)

    def _run(self) -> None:
        while not self._stop.is_set():
            with suppress(FedcoreError):  # the device keeps it for its health report
                self._device.refresh()
            self._stop.wait(self._seconds)


def create_app(device: Device, poll_s: float) -> FastAPI:
    """The application that serves `device` and looks for a new version every `poll_s` seconds."""
    poller = Poller(device, poll_s)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        poller.start()
        yield
        await run_in_threadpool(poller.stop)

    app = FastAPI(
        title="fedcore edge", version=fedcore.__version__, lifespan=life, docs_url=None, redoc_url=None
    )

    @app.get("/health")
    def health() -> dict[str, Any]:
        """How the device is, which version it serves, and its last error."""
        return asdict(device.health())

    @app.post("/predict", openapi_extra=_BODY)
    async def predict(request: Request) -> dict[str, Any]:
        """Scores of rows, and the version that gave them."""
        rows = _rows(await _body(request))
        scores, version = await run_in_threadpool(device.predict, rows)
        return {"scores": scores.tolist(), "version": version}

    app.add_exception_handler(FedcoreError, _refusal)
    app.add_exception_handler(HTTPException, _refusal)
    return app


def serve(device: Device, host: str, port: int, poll_s: float, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT (call it in the main thread); `ready` gets the address once requests are taken.

    Port 0 takes a free one. Raises `ServiceError` when the port is taken.
    """
    with listen(host, port) as listener, _signals_end_the_server_only():
        app = create_app(device, poll_s)
        config = uvicorn.Config(
            app, log_config=None, access_log=False, timeout_graceful_shutdown=5, lifespan="on"
        )
        shown = f"[{host}]" if ":" in host else host
        ready(
            f"http://{shown}:{listener.getsockname()[1]}"
        )  # requests wait in the socket until the loop runs
        uvicorn.Server(config).run([listener])


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `ServiceError` when the address cannot be had."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        number = error.errno or 0  # create_server adds a note to the text of its errors
        reason = os.strerror(number) if number in errorcode else error.strerror
        raise ServiceError(
            f"cannot listen on {host}:{port}: {reason}; choose another with --port or --host"
        ) from None


@contextmanager
def _signals_end_the_server_only() -> Iterator[None]:
    """uvicorn raises a signal again after its graceful stop; here that is no reason to die of it."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: None) for number in numbers]
    try:
        yield
    finally:
        for number, action in zip(numbers, before, strict=True):
            signal.signal(number, action)


async def _body(request: Request) -> bytes:
    """The request's body. Refused with 413 as soon as it is too large, whatever its header says; 408 when it trickles."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise HTTPException(
                        413, f"the body is larger than {MAX_BYTES} bytes; send the rows in parts"
                    )
    except TimeoutError:
        raise HTTPException(408, f"the body did not arrive within {BODY_S} s; send it again") from None
    except ClientDisconnect:
        raise HTTPException(400, "the body was cut off; send it again") from None
    return bytes(body)


def _rows(body: bytes) -> list[Any]:
    try:
        tree = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise HTTPException(
            400, f'the body is not JSON ({error}); send {{"rows": [{{column: value, …}}]}}'
        ) from None
    if not isinstance(tree, dict) or set(tree) != {"rows"} or not isinstance(tree["rows"], list):
        raise BadInput('the body must be {"rows": [{column: value, …}]} and nothing else')
    rows: list[Any] = tree["rows"]
    if len(rows) > MAX_ROWS:
        raise HTTPException(
            413, f"{len(rows)} rows are too many, at most {MAX_ROWS} at once; send them in parts"
        )
    return rows


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


async def _refusal(_: Request, error: Exception) -> JSONResponse:
    """One sentence with the status that fits."""
    if isinstance(error, HTTPException):
        return _sentence(error.status_code, str(error.detail))
    status = 503 if isinstance(error, ServiceError) else 422 if isinstance(error, BadInput) else 500
    return _sentence(status, str(error))


def _sentence(status: int, text: str) -> JSONResponse:
    return JSONResponse({"error": text if len(text) <= SENTENCE else text[:SENTENCE] + "…"}, status)


_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["rows"],
                    "additionalProperties": False,
                    "properties": {
                        "rows": {"type": "array", "maxItems": MAX_ROWS, "items": {"type": "object"}}
                    },
                }
            }
        },
    }
}
