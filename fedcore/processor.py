"""Which products of matrices the processor can do, told to an OpenBLAS that does not know it.

The OpenBLAS that comes with numpy takes AMD's Zen 5 and later for a processor of 2013 and multiplies half as fast as
it could (OpenBLAS pull request 6033, in no release that numpy brings). It reads what to do from the environment when it is
loaded, so that this has to be said before numpy is imported; processes that are started later then do the same.
"""

import os
import sys
from pathlib import Path

_VARIABLE = "OPENBLAS_CORETYPE"
_NEEDED = frozenset({"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"})
_ZEN_5 = 26  # the family's number


def choose_kernels(cpuinfo: Path = Path("/proc/cpuinfo")) -> None:
    """Set ``OPENBLAS_CORETYPE`` where OpenBLAS would choose badly and nobody has chosen.

    Where numpy is there already its OpenBLAS stays as it is, and processes started from this one are told to do the same:
    clients trained in one and in many of them come to the same bytes.
    """
    if _VARIABLE in os.environ or (chosen := kernels_for(_first_core(cpuinfo))) is None:
        return
    if "numpy" in sys.modules:
        chosen = _loaded()
    if chosen is not None:
        os.environ[_VARIABLE] = chosen


def kernels_for(core: str) -> str | None:
    """What OpenBLAS is to take the processor for that Linux describes as `core`, None where it knows by itself."""
    told = dict(_split(line) for line in core.splitlines())
    family, flags = told.get("cpu family", ""), frozenset(told.get("flags", "").split())
    unknown = told.get("vendor_id") == "AuthenticAMD" and family.isdecimal() and int(family) >= _ZEN_5
    return "SkylakeX" if unknown and flags >= _NEEDED else None


def _split(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip(), value.strip()


def _first_core(cpuinfo: Path) -> str:
    """Linux's description of the first core, empty elsewhere."""
    lines: list[str] = []
    try:
        with cpuinfo.open() as told:
            for line in told:
                if not line.strip():
                    break
                lines.append(line)
    except OSError:
        return ""
    return "".join(lines)


def _loaded() -> str | None:
    """What the OpenBLAS that is loaded takes the processor for, None if none is."""
    from threadpoolctl import threadpool_info

    found = (library.get("architecture") for library in threadpool_info())
    return next((name for name in found if name), None)
