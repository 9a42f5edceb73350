"""From files, presets and overrides to one `Config`; what is not known or not allowed is refused with its path."""

import dataclasses
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from fedcore.config.sections import Config
from fedcore.errors import BadConfig, BadInput, UnknownName

_ADAPTER = TypeAdapter(Config)


def load_config(
    path: Path | str | None = None, *, preset: str | None = None, overrides: Iterable[str] = ()
) -> Config:
    """The configuration in `path` (``params.yaml`` of this folder if it is there), preset and overrides on top.

    Overrides are ``dotted.key=value`` with the value in YAML. Raises `BadInput` in one sentence.
    """
    tree = _read(Path(path)) if path else _read(Path("params.yaml")) if Path("params.yaml").exists() else {}
    if preset:
        tree = _overlay(tree, _read(_preset_file(preset, Path(path).parent if path else Path())))
    for override in overrides:
        tree = _overlay(tree, _parse_override(override))
    return config_from(tree)


def config_from(tree: Mapping[str, Any]) -> Config:
    """A validated `Config` from nested mappings."""
    _refuse_unknown(tree, Config, ())
    try:
        return _ADAPTER.validate_python(dict(tree))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadConfig(where, first.get("input"), _sentence(first["msg"])) from None


def overridden(config: Config, overrides: Iterable[str]) -> Config:
    """`config` with ``dotted.key=value`` overrides on top. Raises `BadInput` in one sentence."""
    tree = config_tree(config)
    for override in overrides:
        tree = _overlay(tree, _parse_override(override))
    return config_from(tree)


def config_tree(config: Config) -> dict[str, Any]:
    """`config` as nested JSON values, the inverse of `config_from`."""
    tree: dict[str, Any] = _ADAPTER.dump_python(config, mode="json")
    return tree


def presets(folder: Path = Path()) -> dict[str, Path]:
    """Names and files of the presets beside the parameters and of those shipped with fedcore."""
    package = Path(__file__).parent.parent
    found: dict[str, Path] = {}
    for place in (package / "presets", package.parent / "params", folder / "params"):
        found |= {file.stem: file for file in sorted(place.glob("*.yaml"))}
    return found


def _preset_file(name: str, folder: Path) -> Path:
    known = presets(folder)
    if name not in known:
        raise UnknownName("preset", name, known)
    return known[name]


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}; name an existing parameter file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is not YAML: {' '.join(str(error).split())}; mend the file") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise BadInput(
            f"{path} holds a {type(tree).__name__}, not sections; start it with a key such as 'seed: 1'"
        )
    return tree


def _parse_override(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise BadInput(f"override {text!r} is not KEY=VALUE; write for example --set local.lr=0.05")
    try:
        tree: Any = yaml.safe_load(value)
    except yaml.YAMLError:
        raise BadInput(f"override {text!r}: the value is not YAML; quote it") from None
    if isinstance(tree, str):
        tree = _number(tree)
    for part in reversed(key.strip().split(".")):
        tree = {part: tree}
    result: dict[str, Any] = tree
    return result


def _number(text: str) -> str | float:
    """YAML 1.1 reads ``1e-5`` as text; a person means the number."""
    try:
        return float(text)
    except ValueError:
        return text


def _overlay(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _overlay(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _refuse_unknown(tree: Mapping[str, Any], cls: type, path: tuple[str, ...]) -> None:
    hints = get_type_hints(cls)
    for key, value in tree.items():
        where = ".".join((*path, str(key)))
        if key not in hints:
            near = get_close_matches(str(key), hints, n=1)
            known = ".".join((*path, near[0])) if near else ", ".join(hints)
            raise BadInput(f"unknown parameter {where}; {'nearest known' if near else 'known'}: {known}")
        inner = next((t for t in (hints[key], *get_args(hints[key])) if dataclasses.is_dataclass(t)), None)
        if isinstance(inner, type):
            for item in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(item, Mapping):
                    _refuse_unknown(item, inner, (*path, str(key)))


def _sentence(message: str) -> str:
    message = message.replace("Input should be", "must be")
    return message[:1].lower() + message[1:]
