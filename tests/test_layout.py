"""The house stays as it is drawn: what may lie where, what no file may say, and documents that point at what is there."""

import re
import subprocess
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from fedcore.coordinator import STEPS

ROOT = Path(__file__).parent.parent
NOT_PROSE = {"LICENSE", "requirements.lock", "dvc.lock"}
UNSAID = {"utils", "util", "helpers", "helper", "common", "misc", "base", "manager", "handler"}
# Put together here, so that this file does not say them either.
MACHINE = [f"/{place}/" for place in ("work", "root", "home")] + ["/opt/" + "wheels", "/opt/" + "pypi"]
REGISTRY = re.compile(
    "py"
    + r"pi\.org|files\."
    + "python"
    + r"hosted|down"
    + r"load\.pytorch|anaconda\.org|index-"
    + "url[= ]+http"
)


def committed() -> list[Path]:
    """Files that are, or would be, in the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    return [file for name in listed.stdout.split("\0") if name and (file := ROOT / name).is_file()]


def texts() -> Iterator[tuple[str, str]]:
    """Name and content of each committed text file."""
    for file in committed():
        try:
            yield str(file.relative_to(ROOT)), file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture


def python(folder: str = "") -> list[Path]:
    return [file for file in committed() if file.suffix == ".py" and file.is_relative_to(ROOT / folder)]


@pytest.mark.parametrize("folder", ["mlflow", "docker"])
def test_folders_named_like_libraries_hold_no_python(folder):
    assert not python(folder)
    assert not list((ROOT / folder).glob("**/*.py"))


def test_the_library_mlflow_is_found_outside_the_repository():
    spec = find_spec("mlflow")
    assert spec is not None
    assert spec.origin is not None
    inside = Path(spec.origin).is_relative_to(ROOT) and "site-packages" not in spec.origin
    assert not inside, f"import mlflow finds {spec.origin}"


def test_tests_and_dags_are_no_packages():
    assert not [file for folder in ("tests", "dags") for file in python(folder) if file.name == "__init__.py"]


def test_every_file_in_dags_is_a_dag():
    assert all(file.name.endswith("_dag.py") for file in python("dags"))


def test_pipelines_are_short_and_no_file_is_long():
    length = {str(f.relative_to(ROOT)): len(f.read_text(encoding="utf-8").splitlines()) for f in python()}
    assert {name: n for name, n in length.items() if n > 400} == {}
    assert {name: n for name, n in length.items() if name.startswith("pipelines/") and n >= 40} == {}


def test_files_are_named_for_what_they_are():
    named = {part.removesuffix(".py") for file in python() for part in file.relative_to(ROOT).parts}
    assert named & UNSAID == set()


def test_no_file_names_a_place_of_one_machine_or_a_registry():
    found = {
        name: place
        for name, text in texts()
        for place in [*MACHINE, *REGISTRY.findall(text)]
        if place in text and name not in NOT_PROSE
    }
    assert found == {}


def test_no_data_lie_in_the_repository():
    kinds = {".csv", ".parquet", ".npz", ".npy", ".safetensors", ".onnx", ".db", ".pt", ".pkl", ".zip", ".gz"}
    assert [file.name for file in committed() if file.suffix in kinds] == []
    assert {file.name: size for file in committed() if (size := file.stat().st_size) > 500_000} == {}


def test_nothing_is_pickled():
    unpickling = re.compile(r"^\s*(import|from)\s+(pickle|cloudpickle|dill|joblib)\b", re.MULTILINE)
    assert [name for name, text in texts() if name.endswith(".py") and unpickling.search(text)] == []


def contract() -> list[str]:
    tree = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers: list[str] = tree["tool"]["importlinter"]["contracts"][0]["layers"]
    return layers


def test_the_layers_in_the_document_are_those_of_the_contract():
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    block = re.search(r"```layers\n(.*?)```", text, re.DOTALL)
    assert block is not None
    assert block[1].splitlines() == contract()


def test_every_room_is_described_in_the_document():
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rooms = {name.strip() for layer in contract() for name in re.split(r"[|:]", layer)}
    assert {room for room in rooms if not re.search(rf"\| `{room}(/|\.py)`", text)} == set()


def test_the_table_of_steps_names_the_steps_and_their_tasks():
    table = (ROOT / "docs/one_round.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `(\w+)` \| `(\w+)` \|", table, re.MULTILINE))
    assert tuple(told) == STEPS
    dag = (ROOT / "dags/federated_round_dag.py").read_text(encoding="utf-8")
    tasks = re.findall(r'RoundStepOperator\(task_id="(\w+)", steps=\[(.*?)\]\)', dag)
    wired = {step: task for task, steps in tasks for step in re.findall(r"\w+", steps)}
    assert told == wired | {"record": "decide"}


def slug(heading: str) -> str:
    """The anchor that a heading gets."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def test_links_in_documents_lead_somewhere():
    broken = []
    for name, text in texts():
        if not name.endswith(".md"):
            continue
        prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", prose):
            if target.startswith(("http://", "https://", "mailto:")):
                continue
            path, _, anchor = target.partition("#")
            place = (ROOT / name).parent / path if path else ROOT / name
            if not place.exists():
                broken.append(f"{name}: {target}")
            elif anchor and place.suffix == ".md":
                headings = re.findall(r"^#+ (.+)$", place.read_text(encoding="utf-8"), re.MULTILINE)
                if anchor not in map(slug, headings):
                    broken.append(f"{name}: {target}")
    assert broken == []


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"])
def test_what_documents_name_in_code_is_there(name):
    """Paths in backquotes, such as `fedcore/round.py`, exist."""
    text, rooms = (
        (ROOT / name).read_text(encoding="utf-8"),
        "fedcore|docs|examples|pipelines|dags|tests|mlflow|params",
    )
    named = re.findall(rf"`((?:{rooms}|scripts|benchmarks)/[\w./-]*)`", text)
    assert [path for path in named if not (ROOT / path).exists()] == []
