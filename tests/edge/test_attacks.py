"""Everything a broken or hostile repository can show a device: refused, and the old model goes on."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from tuf.api.metadata import Metadata

from fedcore.edge.bundle import publish
from fedcore.edge.files import sha256
from fedcore.edge.keys import load_root, load_signer, make_keys
from fedcore.edge.manifest import Manifest
from fedcore.edge.pointer import Pointer
from fedcore.edge.repository import Repository
from fedcore.edge.runtime import Device
from fedcore.errors import BundleRefused, FedcoreError, ServiceError

Attack = Callable[[Path, Path, dict[int, Path]], object]


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _target(repo: Path, name: str) -> Path:
    (path,) = (repo / "targets").glob(name)
    return path


def _resign(repo: Path, keys: Path, name: str, change: Callable) -> None:
    """Change metadata with the real key, as somebody who holds it could."""
    path = repo / "metadata" / name
    metadata = Metadata.from_file(str(path))
    change(metadata.signed)
    metadata.sign(load_signer(keys, metadata.signed.type, load_root(keys / "root.json").signed))
    metadata.to_file(str(path))


def _republish_changed(
    repo: Path, keys: Path, bundles: dict[int, Path], change: Callable[[dict], None]
) -> None:
    """Publish, properly signed, version 2 with a manifest or files that a broken exporter could have made."""
    broken = Path(shutil.copytree(bundles[2], repo.parent / "broken"))
    files = {path.name: path.read_bytes() for path in broken.iterdir()}
    change(files)
    manifest = json.loads(files["manifest.json"])
    manifest["sha256"] = {name: sha256(files[name]) for name in manifest["sha256"]}
    files["manifest.json"] = json.dumps(manifest).encode()
    for name, data in files.items():
        (broken / name).write_bytes(data)
    publish(broken, repo, keys, 2)


def _other_scores(files: dict) -> None:
    manifest = Manifest.from_json(files["manifest.json"])
    wrong = replace(manifest, probe_scores=tuple(score + 0.1 for score in manifest.probe_scores))
    files["manifest.json"] = wrong.to_json().encode()


def _misshaped_scores(files: dict) -> None:
    manifest = Manifest.from_json(files["manifest.json"])
    files["manifest.json"] = replace(manifest, probe_scores=manifest.probe_scores[:3]).to_json().encode()


def _foreign_probes(files: dict) -> None:
    manifest = Manifest.from_json(files["manifest.json"])
    files["manifest.json"] = replace(manifest, probe_rows=({"colour": "red"},)).to_json().encode()


def _sign_as_it_is(repo: Path, keys: Path, files: dict[str, bytes]) -> None:
    repository = Repository(repo, keys)
    repository.write(repository.read(), files, days=1)


def _other_manifest(repo, keys, bundles):
    publish(bundles[2], repo, keys, 2)
    _sign_as_it_is(repo, keys, {"champion.json": Pointer("champion", 2, "0" * 64).to_bytes()})


def _flipped_model(repo, keys, bundles):
    publish(bundles[2], repo, keys, 2)
    _flip(_target(repo, "2/*.model.onnx"))


def _flipped_targets(repo, keys, bundles):
    publish(bundles[2], repo, keys, 2)
    _flip(repo / "metadata" / "2.targets.json")


def _flipped_timestamp_signature(repo, keys, bundles):
    publish(bundles[2], repo, keys, 2)
    path = repo / "metadata" / "timestamp.json"
    tree = json.loads(path.read_text())
    tree["signed"]["version"] = 99
    path.write_text(json.dumps(tree))


def _expired(repo, keys, bundles):
    publish(bundles[2], repo, keys, 2)
    past = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=1)
    _resign(repo, keys, "timestamp.json", lambda signed: setattr(signed, "expires", past))


def _other_keys(repo, keys, bundles):
    make_keys(repo.parent / "thief")
    shutil.rmtree(repo)
    publish(bundles[2], repo, repo.parent / "thief", 2)


def _swapped_model(repo, keys, bundles):
    publish(bundles[2], repo, keys, 2)
    shutil.copy(_target(repo, "1/*.model.onnx"), _target(repo, "2/*.model.onnx"))


def _swapped_pointer(repo, keys, bundles):
    old = _target(repo, "*.champion.json").read_bytes()
    publish(bundles[2], repo, keys, 2)
    for path in (repo / "targets").glob("*.champion.json"):
        path.write_bytes(old.replace(b'"version":1', b'"version":3'))


def _longer_file(repo, keys, bundles):
    publish(bundles[2], repo, keys, 2)
    with _target(repo, "2/*.features.json").open("ab") as file:
        file.write(b" " * 100)


ATTACKS: dict[str, tuple[Attack, type[FedcoreError], str]] = {
    "a flipped byte in the model": (_flipped_model, BundleRefused, "tampered"),
    "a flipped byte in the targets": (_flipped_targets, BundleRefused, "refused"),
    "a changed timestamp": (_flipped_timestamp_signature, BundleRefused, "refused"),
    "expired metadata": (_expired, BundleRefused, "publish again to renew"),
    "other keys": (_other_keys, BundleRefused, "refused"),
    "the model of another version": (_swapped_model, BundleRefused, "tampered"),
    "another pointer": (_swapped_pointer, BundleRefused, "tampered"),
    "an appended file": (_longer_file, BundleRefused, "tampered"),
    "no repository": (lambda repo, *_: shutil.rmtree(repo), ServiceError, "lacks a file"),
    "no model": (
        lambda repo, keys, bundles: (
            publish(bundles[2], repo, keys, 2),
            _target(repo, "2/*.model.onnx").unlink(),
        ),
        ServiceError,
        "lacks a file",
    ),
    "scores that differ": (
        lambda *a: _republish_changed(*a, _other_scores),
        BundleRefused,
        "differ from its manifest",
    ),
    "too few scores": (
        lambda *a: _republish_changed(*a, _misshaped_scores),
        BundleRefused,
        "scores of shape",
    ),
    "probes of other columns": (
        lambda *a: _republish_changed(*a, _foreign_probes),
        BundleRefused,
        "own probe rows",
    ),
    "a model that is none": (
        lambda *a: _republish_changed(*a, lambda files: files.update({"model.onnx": b"no model"})),
        BundleRefused,
        "model.onnx cannot be loaded",
    ),
    "a pointer that is none": (
        lambda repo, keys, _: _sign_as_it_is(repo, keys, {"champion.json": b'{"version": true}'}),
        BundleRefused,
        "pointer is not one",
    ),
    "a pointer that breaks the reader": (
        lambda repo, keys, _: _sign_as_it_is(repo, keys, {"champion.json": b"[" * 100_000}),
        BundleRefused,
        "cannot be used",
    ),
    "a pointer to another manifest": (_other_manifest, BundleRefused, "another manifest"),
    "a pointer to nothing": (
        lambda repo, keys, _: _sign_as_it_is(
            repo, keys, {"champion.json": Pointer("champion", 9, "0" * 64).to_bytes()}
        ),
        BundleRefused,
        "9/model.onnx is not published",
    ),
    "features that are none": (
        lambda *a: _republish_changed(*a, lambda files: files.update({"features.json": b"{}"})),
        BundleRefused,
        "cannot be loaded",
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_bad_publication_is_refused_and_the_old_model_goes_on(
    name, device, repo, keys, bundles, rows, tmp_path
):
    attack, error, sentence = ATTACKS[name]
    before, _ = device.predict(rows)
    attack(repo, keys, bundles)
    for _ in range(2):  # the second time from metadata already seen
        with pytest.raises(error, match=sentence) as caught:
            device.refresh()
        health = device.health()
        assert health.status == "stale"
        assert health.version == 1
        assert health.last_error == str(caught.value)
        scores, version = device.predict(rows)
        assert version == 1
        assert np.array_equal(scores, before)
    assert [path.name[:2] for path in (tmp_path / "home" / "versions").iterdir()] == ["1-"], (
        "nothing half-written"
    )


@pytest.mark.parametrize("name", ATTACKS)
def test_a_new_device_takes_nothing_from_a_bad_publication(name, repo, keys, root, bundles, rows, tmp_path):
    attack, error, sentence = ATTACKS[name]
    attack(repo, keys, bundles)
    device = Device(tmp_path / "new", repo, root)
    with pytest.raises(error, match=sentence):
        device.refresh()
    assert device.health().status == "empty"
    with pytest.raises(ServiceError, match="no model yet"):
        device.predict(rows)
    device.close()


def test_a_device_recovers_once_the_repository_is_mended(device, repo, keys, bundles):
    _flipped_model(repo, keys, bundles)
    with pytest.raises(BundleRefused):
        device.refresh()
    publish(bundles[2], repo, keys, 2)
    assert device.refresh()
    assert device.health().version == 2
    assert device.health().last_error is None
