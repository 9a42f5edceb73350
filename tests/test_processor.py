"""OpenBLAS is told what a processor can do that it does not know; whoever has chosen is left alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedcore.processor import choose_kernels, kernels_for

ZEN_5 = """\
vendor_id\t: AuthenticAMD
cpu family\t: 26
model\t\t: 2
flags\t\t: fpu fma avx2 avx512f avx512dq avx512cd avx512bw avx512vl
"""


@pytest.mark.parametrize(
    ("core", "expected"),
    [
        (ZEN_5, "SkylakeX"),
        (ZEN_5.replace("26", "31"), "SkylakeX"),  # whatever comes after it
        (ZEN_5.replace("26", "25"), None),  # Zen 4, which OpenBLAS knows
        (ZEN_5.replace("AuthenticAMD", "GenuineIntel"), None),
        (ZEN_5.replace("avx512vl", ""), None),  # a virtual machine that hides what its processor can do
        (ZEN_5.replace("26", "unknown"), None),
        ("processor : 0\nFeatures : fp asimd\n", None),
        ("", None),
    ],
)
def test_only_a_processor_that_openblas_does_not_know_is_named(core: str, expected: str | None) -> None:
    assert kernels_for(core) == expected


def test_whoever_has_chosen_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(ZEN_5 + "\n" + ZEN_5.replace("26", "25"))
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")
    choose_kernels(cpuinfo)
    assert os.environ["OPENBLAS_CORETYPE"] == "Prescott"


def test_where_linux_does_not_say_nothing_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    choose_kernels(tmp_path / "nothing")
    assert "OPENBLAS_CORETYPE" not in os.environ


PROGRAM = """
import os, sys
from pathlib import Path
os.environ["OPENBLAS_CORETYPE"] = "Haswell"  # fedcore itself chooses nothing
{first}
from fedcore.processor import choose_kernels
del os.environ["OPENBLAS_CORETYPE"]
choose_kernels(Path(sys.argv[1]))
print(os.environ["OPENBLAS_CORETYPE"])
"""


@pytest.mark.parametrize(("first", "expected"), [("import numpy", "Haswell"), ("", "SkylakeX")])
def test_processes_that_come_later_multiply_as_the_one_that_starts_them(
    first: str, expected: str, tmp_path: Path
) -> None:
    """Numpy that is there already keeps its kernels, and so do workers: engines agree to the byte."""
    (tmp_path / "cpuinfo").write_text(ZEN_5)
    program = [sys.executable, "-c", PROGRAM.format(first=first), str(tmp_path / "cpuinfo")]
    told = subprocess.run(program, capture_output=True, text=True, check=True).stdout
    assert told.strip() == expected
