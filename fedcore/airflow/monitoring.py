"""The tasks that look after a promoted model: judge it on newer data, and train again when it got worse."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowSkipException

from fedcore.airflow.hook import DEFAULT_CONNECTION, FedcoreHook
from fedcore.airflow.names import TRAINING_DAG
from fedcore.airflow.rounds import Facts
from fedcore.errors import BadInput

if TYPE_CHECKING:
    from fedcore.adapters.trained import TrainedModel


class LookOperator(BaseOperator):
    """Judges the champion on newer data; leaves ``{"action", "reasons", "version", "metrics", "retraining"}``.

    `newer` is a folder of sites like the one trained on. Each site's rows are counted and scored
    by themselves; only counts are added up.
    """

    template_fields: Sequence[str] = ("newer",)

    def __init__(
        self,
        *,
        newer: str = "{{ params.newer or '' }}",
        fedcore_conn_id: str = DEFAULT_CONNECTION,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.newer, self.fedcore_conn_id = newer, fedcore_conn_id

    def execute(self, context: Context) -> Facts:
        """The verdict, and the name of the run that would train again."""
        from fedcore import registry
        from fedcore.adapters.trained import TrainedModel
        from fedcore.monitor.drift import stability
        from fedcore.monitor.health import judge

        hook = FedcoreHook(self.fedcore_conn_id)
        config, place, newer = hook.config(), hook.place, _folder(self.newer)
        champion = registry.champion(place.registry_uri, config.promotion.model)
        if champion is None:
            raise BadInput(
                f"model {config.promotion.model!r} has no champion to look after; promote a version first"
            )
        fetched = registry.fetch(
            place.registry_uri, champion, place.workdir / "monitor" / str(champion.number)
        )
        trained = TrainedModel.load(fetched)
        metrics, counts = _seen(trained, newer)
        drift = stability(_seen(trained, hook.sites())[1], counts)
        verdict = judge(champion.metrics, metrics, drift, config.monitor)
        return {
            "action": verdict.action,
            "reasons": list(verdict.reasons),
            "version": champion.number,
            "metrics": metrics,
            "retraining": f"retrain-v{champion.number}-{_version(newer)}",
            "newer": str(newer),
        }


class RetrainOperator(TriggerDagRunOperator):
    """Triggers a training on the newer data where the verdict (JSON) asks for it, once for the same data."""

    template_fields: Sequence[str] = ("verdict",)

    def __init__(self, *, verdict: str, **kwargs: Any) -> None:
        super().__init__(
            trigger_dag_id=TRAINING_DAG,
            logical_date=None,
            skip_when_already_exists=True,
            openlineage_inject_parent_info=False,
            **kwargs,
        )
        self.verdict = verdict

    def execute(self, context: Context) -> None:
        """Skipped when the model is well."""
        verdict = json.loads(self.verdict)
        if verdict["action"] == "ok":
            raise AirflowSkipException("the champion is as good as it was")
        self.trigger_run_id = verdict["retraining"]
        self.conf = {"run": verdict["retraining"], "sites": verdict["newer"]}
        super().execute(context)


def _seen(trained: "TrainedModel", sites: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """Metrics and histograms of all sites together; a site whose data cannot be used is passed over."""
    from fedcore.data.federated import read_columns, targets
    from fedcore.errors import BadData
    from fedcore.local.metrics import measure, summarize
    from fedcore.monitor.drift import histogram, merged
    from fedcore.types import Reply

    replies, counts = [], []
    for folder in sorted(path for path in sites.iterdir() if path.is_dir()):
        try:
            columns, labels = read_columns(folder, trained.schema)
            y = targets(labels, trained.schema, folder.name)
        except BadData:
            continue
        replies.append(Reply(folder.name, measure(trained.predict(columns), y, trained.schema.task)))
        counts.append(histogram(columns, trained.features))
    if not counts:
        raise BadInput(f"{sites} holds no usable site; name a folder with one folder a site")
    return summarize(replies, trained.schema.task)[0], dict(merged(counts))


def _folder(text: str) -> Path:
    if not text or not Path(text).is_dir():
        raise BadInput(f"no folder with newer data, got {text!r}; trigger monitoring with newer=FOLDER")
    return Path(text)


def _version(sites: Path) -> str:
    """A short name of what lies in a folder of sites: paths and sizes of its files."""
    files = sorted(file for file in sites.rglob("*") if file.is_file())
    lines = "".join(f"{file.relative_to(sites)} {file.stat().st_size}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()[:8]
