"""What the documents tell people to type is typed here: known commands always, all of them in the slow tests."""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from fedcore.cli import main

ROOT = Path(__file__).parent.parent
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    *sorted(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md")),
)
PROGRAMS = ("fedcore", "make", "dvc", "python")
QUICK = ("fedcore data list", "fedcore doctor", "fedcore edge --help")


def blocks(document: str, language: str) -> list[str]:
    """Contents of the fenced blocks of a language."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def commands(document: str) -> list[str]:
    """Every command of our programs in a document, in blocks and in running text."""
    text = (ROOT / document).read_text(encoding="utf-8")
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE))
    lines = [line for block in blocks(document, "sh") for line in block.replace("\\\n", " ").splitlines()]
    found = [re.sub(r"^([A-Z]+=\S+ )+", "", line).removesuffix(" &") for line in lines + inline]
    return [line for line in found if re.match(rf"({'|'.join(PROGRAMS)}) [\w-]", line)]


ALL = sorted({(document, command) for document in DOCUMENTS for command in commands(document)})


@pytest.mark.parametrize(("document", "command"), ALL, ids=[command for _, command in ALL])
def test_every_command_in_the_documents_is_known(document, command, monkeypatch, capsys):
    """Targets of make, options of fedcore, scripts of Python, and what the test of DVC runs."""
    program, *words = shlex.split(command)
    if program == "make":
        assert re.search(rf"^{re.escape(words[0])}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif program == "python":
        assert words[0] == "-" or (ROOT / words[0]).is_file()
    elif program == "dvc":
        tested = (ROOT / "tests/test_dvc.py").read_text()
        plain = [word for word in words if word.isalpha()]
        assert words[0] == "remote" or ", ".join(f'"{word}"' for word in ["dvc", *plain]) in tested
    else:
        monkeypatch.chdir(ROOT)
        with pytest.raises(SystemExit) as ended:
            main([*words, "--help"])
        assert ended.value.code == 0, capsys.readouterr().err


def test_an_unknown_option_would_be_noticed(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["simulate", "--prset", "digits", "--help"])
    assert ended.value.code == 2


@pytest.mark.parametrize("command", QUICK)
def test_quick_commands_of_the_readme_run(command, monkeypatch, capsys):
    assert command in commands("README.md")
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as ended:
        main(shlex.split(command)[1:])
    assert ended.value.code == 0
    assert capsys.readouterr().out


@pytest.fixture
def tree(tmp_path):
    """A copy of the repository as git would have it, with this environment as ``.venv``; empty of processes afterwards."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    place = tmp_path / "fedcore"
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, place / name)
    (place / ".venv").symlink_to(sys.prefix)
    subprocess.run(["git", "init", "-q"], cwd=place, check=True)
    yield place
    left = [one for one in psutil.process_iter() if str(place) in " ".join(words_of(one))]
    for one in left:
        one.kill()
    assert left == []


def words_of(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def bash(script: str, place: Path, minutes: float) -> str:
    """Standard output of a script in `place`, stopped at the first command that fails; its processes end with it."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with subprocess.Popen(
        ["bash", "-eo", "pipefail", "-c", script],
        cwd=place,
        env=os.environ | {"PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=60 * minutes)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == 0, f"{script}\n{out}\n{err}"
    return out


def script(document: str) -> str:
    """All shell blocks of a document as one script, without what make does: that has tests of its own."""
    lines = [line for block in blocks(document, "sh") for line in block.splitlines()]
    return "\n".join(line for line in lines if not line.startswith("make "))


@pytest.mark.slow
@pytest.mark.timeout(1600)
def test_the_readme_can_be_typed_from_top_to_bottom(tree):
    """Then what its table says to look at; and what it says a run prints is what a run prints."""
    inline = [c for c in commands("README.md") if c.startswith("fedcore") and c not in script("README.md")]
    out = bash("\n".join([script("README.md"), *inline]), tree, minutes=20)
    shown = next(block for block in blocks("README.md", "") if block.startswith("run "))
    assert [line.split()[0] for line in shown.splitlines()] == [
        line.split()[0] for line in out.splitlines()[: len(shown.splitlines())]
    ]
    said, printed = (float(re.search(r"accuracy\s+([\d.]+)", text)[1]) for text in (shown, out))  # type: ignore[index]
    assert abs(said - printed) < 0.02, "the README's numbers are not those of today"
    program = "".join(blocks("README.md", "python"))
    fedavg = re.findall(r"sha256 (\w+)", out)
    assert bash(f"python -c {shlex.quote(program)}", tree, minutes=3).split()[-1] in fedavg


@pytest.mark.slow
@pytest.mark.service
@pytest.mark.timeout(1600)
def test_your_own_data_can_be_typed_from_top_to_bottom(tree):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    out = bash(script("docs/own_data.md").replace("8090", str(port)), tree, minutes=20)
    assert re.search(r'"scores":\[0\.\d+\],"version":1', out)
    shown, kept = blocks("docs/own_data.md", "yaml")[0], (ROOT / "examples/own.yaml").read_text()
    assert [line for line in kept.splitlines() if not line.startswith("#")] == shown.splitlines()


@pytest.mark.slow
@pytest.mark.service
@pytest.mark.timeout(1500)
def test_make_demo_prints_the_table_that_the_readme_shows(tree):
    out = bash("make -o setup demo", tree, minutes=15)
    shown = next(block for block in blocks("README.md", "") if "airline" in block)
    heading = next(line for line in shown.splitlines() if "airline" in line)
    assert [line for line in out.splitlines() if line.split() == heading.split()]
    for name in ("rounds", "privacy", "MLflow run", "Airflow grid", "pictures"):
        assert re.search(rf"^{name} ", out, re.MULTILINE), name


@pytest.mark.slow
@pytest.mark.service
@pytest.mark.timeout(1600)
def test_make_up_starts_everything_and_make_down_stops_it(tree):
    out = bash("make -o setup up; make down", tree, minutes=20)
    assert re.search(r"^mlflow +http://127", out, re.MULTILINE)
    assert "stopped: " in out
