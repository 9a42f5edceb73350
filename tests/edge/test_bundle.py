import json
import os
import shutil
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata

from fedcore.edge.bundle import Published, publish, rollback, verify
from fedcore.edge.keys import load_root, load_signer, make_keys
from fedcore.errors import BadInput, BundleRefused, CorruptState, StorageError


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_keys_are_readable_by_their_owner_alone_and_root_is_public(tmp_path):
    root = make_keys(tmp_path / "keys")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "keys").iterdir()}
    assert modes.pop("root.json") == 0o644
    assert modes == {f"{role}.pem": 0o600 for role in ("root", "targets", "snapshot", "timestamp")}
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    assert b"PRIVATE" not in root.read_bytes()


def test_keys_are_never_overwritten(tmp_path):
    make_keys(tmp_path / "keys")
    before = _files(tmp_path / "keys")
    with pytest.raises(StorageError, match="never overwritten"):
        make_keys(tmp_path / "keys")
    assert _files(tmp_path / "keys") == before


def test_keys_go_into_an_empty_folder_and_not_below_a_file(tmp_path):
    (tmp_path / "keys").mkdir()
    make_keys(tmp_path / "keys")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot make"):
        make_keys(tmp_path / "file" / "keys")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "keys"]


def test_publishing_points_the_channel_at_the_version(repo, keys, bundles, root):
    published = publish(bundles[2], repo, keys, 2)
    assert (published.version, published.previous, published.release, published.changed) == (2, 1, 2, True)
    report = verify(repo, root)
    assert report.channels == {"champion": 2}
    assert report.versions == (1, 2)
    assert report.files == 9
    assert report.release == 2


def test_publishing_the_same_again_changes_no_byte(repo, keys, bundles):
    before = _files(repo)
    again = publish(bundles[1], repo, keys, 1)
    assert not again.changed
    assert again.release == 1
    assert _files(repo) == before


def test_signatures_past_half_their_life_are_renewed_by_publishing_again(repo, keys, bundles):
    publish(bundles[2], repo, keys, 2, expires_days=1)
    assert publish(bundles[2], repo, keys, 2, expires_days=1).release == 2
    renewed = publish(bundles[2], repo, keys, 2, expires_days=30)
    assert renewed.release == 3
    assert not renewed.changed
    assert renewed.previous == 1
    assert datetime.fromisoformat(renewed.expires) > datetime.now(UTC) + timedelta(days=29)


def test_a_lower_version_is_refused_unless_wanted(repo, keys, bundles, root):
    publish(bundles[3], repo, keys, 3)
    with pytest.raises(BundleRefused, match="version 2 is lower than the published 3"):
        publish(bundles[2], repo, keys, 2)
    assert publish(bundles[2], repo, keys, 2, rollback=True).version == 2
    assert verify(repo, root).channels == {"champion": 2}


def test_a_version_never_changes_its_content(repo, keys, bundles):
    with pytest.raises(BundleRefused, match=r"already published with another model.onnx"):
        publish(bundles[2], repo, keys, 1)


def test_rollback_goes_to_the_version_that_was_served_before(repo, keys, bundles):
    publish(bundles[2], repo, keys, 2)
    back = rollback(repo, keys)
    assert (back.version, back.previous, back.release) == (1, None, 3)
    publish(bundles[3], repo, keys, 3)
    assert rollback(repo, keys).version == 1, "not the bad version 2"


def test_rollback_to_a_named_version_twice_is_as_once(repo, keys, bundles):
    publish(bundles[2], repo, keys, 2)
    publish(bundles[3], repo, keys, 3)
    once = rollback(repo, keys, to=2)
    assert (once.version, once.previous) == (2, 1)
    assert rollback(repo, keys, to=2) == Published(**{**vars(once), "changed": False})


@pytest.mark.parametrize("to", [None, 9])
def test_rollback_without_such_a_version_is_refused(repo, keys, to):
    with pytest.raises(BadInput, match=r"to go back to; known: \[1\]"):
        rollback(repo, keys, to=to)


def test_rollback_of_an_empty_repository_is_refused(tmp_path, keys):
    with pytest.raises(BadInput, match="no version"):
        rollback(tmp_path / "none", keys)


def test_channels_move_independently(repo, keys, bundles, root):
    publish(bundles[2], repo, keys, 2, channel="canary")
    assert verify(repo, root).channels == {"champion": 1, "canary": 2}
    with pytest.raises(BadInput, match="not a name"):
        publish(bundles[2], repo, keys, 2, channel="../canary")


def test_a_bundle_that_is_not_what_its_manifest_says_is_not_published(tmp_path, keys, bundles):
    broken = Path(shutil.copytree(bundles[1], tmp_path / "broken"))
    _flip(broken / "model.onnx")
    with pytest.raises(BundleRefused, match=r"model.onnx has sha256"):
        publish(broken, tmp_path / "repo", keys, 1)
    (broken / "model.onnx").unlink()
    with pytest.raises(BundleRefused, match=r"cannot read .*model.onnx"):
        publish(broken, tmp_path / "repo", keys, 1)
    assert not (tmp_path / "repo").exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 99}', "\xff"])
def test_a_broken_manifest_is_refused(tmp_path, keys, bundles, text):
    broken = Path(shutil.copytree(bundles[1], tmp_path / "broken"))
    (broken / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(BundleRefused, match=r"format 99|not a manifest"):
        publish(broken, tmp_path / "repo", keys, 1)


def test_version_zero_is_refused(tmp_path, keys, bundles):
    with pytest.raises(BadInput, match="version 0"):
        publish(bundles[1], tmp_path / "repo", keys, 0)


def test_a_crash_before_the_last_file_leaves_the_old_state_and_can_be_repeated(
    repo, keys, bundles, root, tmp_path
):
    before = _files(repo)
    publish(bundles[2], repo, keys, 2)
    (repo / "metadata" / "timestamp.json").write_bytes(
        before["metadata/timestamp.json"]
    )  # the last write undone
    assert verify(repo, root).channels == {"champion": 1}
    assert publish(bundles[2], repo, keys, 2).changed
    assert verify(repo, root).channels == {"champion": 2}


def test_publishers_at_the_same_time_each_get_their_own_state(repo, keys, bundles, root):
    channels = [f"channel-{i}" for i in range(6)]
    threads = [threading.Thread(target=publish, args=(bundles[2], repo, keys, 2, name)) for name in channels]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report = verify(repo, root)
    assert report.channels == {"champion": 1, **dict.fromkeys(channels, 2)}
    assert report.release == 7


def test_nothing_is_signed_on_top_of_metadata_that_were_tampered_with(repo, keys, bundles):
    path = repo / "metadata" / "1.targets.json"
    tree = json.loads(path.read_text())
    del tree["signed"]["targets"]["1/model.onnx"]
    path.write_text(json.dumps(tree))
    with pytest.raises(CorruptState, match=r"1.targets.json is not what the keys"):
        publish(bundles[2], repo, keys, 2)


@pytest.mark.parametrize("text", ["", "{", "{}", "[]"])
def test_a_corrupt_repository_is_named_and_not_made_anew(repo, keys, bundles, text):
    (repo / "metadata" / "timestamp.json").write_text(text)
    with pytest.raises(CorruptState, match=r"timestamp.json is not what"):
        publish(bundles[2], repo, keys, 2)


def test_a_repository_without_its_timestamp_is_not_made_anew(repo, keys, bundles):
    publish(bundles[2], repo, keys, 2)
    (repo / "metadata" / "timestamp.json").unlink()
    with pytest.raises(CorruptState, match=r"timestamp.json is missing"):
        publish(bundles[3], repo, keys, 3)


def test_metadata_of_another_role_is_not_accepted(repo, keys, bundles):
    shutil.copy(repo / "metadata" / "1.snapshot.json", repo / "metadata" / "1.targets.json")
    with pytest.raises(CorruptState, match="holds snapshot metadata"):
        publish(bundles[2], repo, keys, 2)


def test_a_damaged_pointer_stops_the_publisher_and_a_damaged_model_is_mended(repo, keys, bundles, root):
    (model,) = (repo / "targets" / "1").glob("*.model.onnx")
    _flip(model)
    with pytest.raises(BundleRefused, match="refused as tampered"):
        verify(repo, root)
    publish(bundles[1], repo, keys, 1)
    assert verify(repo, root).versions == (1,)
    (pointer,) = (repo / "targets").glob("*.champion.json")
    _flip(pointer)
    with pytest.raises(CorruptState, match=r"champion.json is not what was signed"):
        publish(bundles[2], repo, keys, 2)


def test_keys_of_another_repository_cannot_publish(repo, bundles, tmp_path):
    make_keys(tmp_path / "other")
    with pytest.raises(CorruptState, match="is not what the keys in"):
        publish(bundles[2], repo, tmp_path / "other", 2)
    (repo / "metadata" / "timestamp.json").unlink()
    with pytest.raises(BundleRefused, match="belongs to other keys"):
        publish(bundles[2], repo, tmp_path / "other", 2)


def test_a_private_key_that_is_missing_broken_or_of_another_set_is_named(tmp_path, bundles, keys):
    mixed = Path(shutil.copytree(keys, tmp_path / "mixed"))
    for damage, why in (
        (lambda: shutil.copy(keys / "snapshot.pem", mixed / "targets.pem"), "is not the key that"),
        (lambda: (mixed / "targets.pem").write_text("no key"), "is not the key that"),
        ((mixed / "targets.pem").unlink, "cannot read .*targets.pem"),
    ):
        damage()
        with pytest.raises(BadInput, match=why):
            publish(bundles[1], tmp_path / "repo", mixed, 1)
        assert not (tmp_path / "repo" / "metadata" / "timestamp.json").exists()


def test_publishing_needs_no_root_key(tmp_path, bundles, keys):
    online = Path(shutil.copytree(keys, tmp_path / "online"))
    (online / "root.pem").unlink()
    assert publish(bundles[1], tmp_path / "repo", online, 1).changed


def test_a_root_that_is_missing_or_broken_is_named(tmp_path, bundles, keys, root):
    with pytest.raises(BadInput, match=r"cannot read .*root.json"):
        publish(bundles[1], tmp_path / "repo", tmp_path / "no keys", 1)
    forged = tmp_path / "forged"
    forged.mkdir()
    tree = json.loads(root.read_text())
    tree["signed"]["expires"] = "2999-01-01T00:00:00Z"
    (forged / "root.json").write_text(json.dumps(tree))
    with pytest.raises(BadInput, match="no root of trust"):
        publish(bundles[1], tmp_path / "repo", forged, 1)
    with pytest.raises(StorageError, match="cannot read"):
        verify(tmp_path, tmp_path / "none.json")


def test_an_expired_root_is_refused(tmp_path, bundles, keys):
    old = Path(shutil.copytree(keys, tmp_path / "old"))
    root = load_root(old / "root.json")
    root.signed.expires = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
    root.sign(load_signer(old, "root", root.signed))
    root.to_file(str(old / "root.json"))
    with pytest.raises(BundleRefused, match="expired on"):
        publish(bundles[1], tmp_path / "repo", old, 1)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_repository_is_named(repo, keys, bundles):
    (repo / "metadata").chmod(0o500)
    with pytest.raises(StorageError, match="cannot write"):
        publish(bundles[2], repo, keys, 2)


def test_a_repository_below_a_file_is_named(tmp_path, keys, bundles):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        publish(bundles[1], tmp_path / "file" / "repo", keys, 1)


def test_metadata_are_standard_tuf(repo, root):
    trusted = load_root(root).signed
    for name in ("timestamp", "1.snapshot", "1.targets"):
        metadata = Metadata.from_file(str(repo / "metadata" / f"{name}.json"))
        trusted.verify_delegate(metadata.signed.type, metadata.signed_bytes, metadata.signatures)
    assert trusted.consistent_snapshot
