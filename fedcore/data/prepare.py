"""Data ready to train on: ingested, partitioned and checked under a work directory, once.

DVC's stages do the same one by one; this is the way of a run without DVC. A stage that was
killed is done again; one that is done for the same settings is not.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedcore.blobs import write_whole
from fedcore.config import Config, config_tree
from fedcore.types import Json, canonical_json


@dataclass(frozen=True)
class Prepared:
    """A folder of sites and the verdict of the checks.

    `left_out` maps a site that failed to its reason, `digests` every site that
    lies there, asked for or not, to the keyed digest of its data version, `summary` is what may leave the sites.
    """

    sites: Path
    passing: tuple[str, ...]
    left_out: Mapping[str, str]
    digests: Mapping[str, str]
    summary: Mapping[str, Json]


def prepare(config: Config, workdir: Path) -> Prepared:
    """Ingest, partition and check the data of `config` under ``workdir/data``.

    Prepared data of other settings are left as they are, for there are runs that go on with
    them: these then lie in ``workdir/data-DIGEST``.
    """
    from fedcore.data.catalog import ingest
    from fedcore.data.partition import partition

    wanted = config_tree(config)["data"]
    del wanted["encoding"]  # it changes no file
    settings = canonical_json({"seed": config.seed, "data": wanted})
    folder = workdir / "data"
    if (folder / "prepared.json").exists() and (folder / "prepared.json").read_text("utf-8") != settings:
        folder = workdir / f"data-{hashlib.sha256(settings.encode()).hexdigest()[:8]}"
    stamp = folder / "prepared.json"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != settings:
        stamp.unlink(missing_ok=True)
        ingest(config.data, folder / "raw", config.seed)
        partition(folder / "raw", folder / "sites", config.data, config.seed)
        write_whole(stamp, settings.encode())
    return prepared_at(folder / "sites", None, config, folder / "checks", workdir / "data" / "keys")


def prepared_at(
    sites: Path, checks: Path | None, config: Config, out: Path | None = None, keys: Path | None = None
) -> Prepared:
    """The sites under `sites`, judged by the summary in the file `checks`, or checked now into `out`.

    `keys` holds the sites' own keys: one folder for all ways to prepare the same data, which then
    have one version.
    """
    from fedcore.data.checks import check_sites, read_results, summary

    if checks is None:
        folder = out or sites.parent / "checks"
        check_sites(sites, config.checks, folder, keys)
        checks = folder / "checks.json"
    judged = read_results(checks)
    results = {
        site: result for site, result in judged.items() if not config.data.sites or site in config.data.sites
    }
    return Prepared(
        sites=sites,
        passing=tuple(sorted(site for site, result in results.items() if result.passed)),
        left_out={site: "; ".join(result.reasons) for site, result in results.items() if not result.passed},
        digests={site: result.digest for site, result in judged.items()},
        summary=summary(results)["sites"],
    )
