"""Ask a device how it is, over HTTP; a rollout waits here until its version serves."""

import json
import time
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from fedcore.errors import BundleRefused, ServiceError


def ask_health(url: str, timeout_s: float = 5.0) -> dict[str, Any]:
    """The health report of the device at `url`. Raises `ServiceError` when there is no answer."""
    address = url.rstrip("/") + "/health"
    try:
        if not address.startswith(("http://", "https://")):
            raise ValueError("it must start with http:// or https://")
        with urlopen(address, timeout=timeout_s) as answer:
            report: dict[str, Any] = json.load(answer)
            return {**report, "version": report["version"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise ServiceError(
            f"no edge device answers at {address} ({reason}); start it with: fedcore edge run"
        ) from None


def wait_until_serving(url: str, version: int, deadline_s: float, every_s: float = 0.2) -> dict[str, Any]:
    """The first health report in which `version` serves, within `deadline_s` seconds.

    Raises `BundleRefused` with the device's own last error when it does not come to that,
    `ServiceError` when the device never answered.
    """
    end = time.monotonic() + deadline_s
    while True:
        try:
            report, silence = ask_health(url), None
            if report["version"] == version:
                return report
        except ServiceError as error:
            report, silence = {}, error
        if time.monotonic() >= end:
            raise silence or BundleRefused(
                f"the device at {url} serves version {report['version']} after {deadline_s:g} s instead of {version} "
                f"(its last error: {report.get('last_error')}); see its /health"
            )
        time.sleep(every_s)
