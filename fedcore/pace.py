"""Settings -> how the rounds of a plan pass on the virtual clock; what cannot hold together is refused."""

from collections.abc import Mapping
from math import ceil, prod

from fedcore.adapters.architecture import Layer
from fedcore.adapters.model import ModelSpec, build_model
from fedcore.adapters.zoo import layers
from fedcore.clock import Devices, Timing
from fedcore.config import Config, DeviceClass, TimeConfig
from fedcore.errors import BadConfig, PlanRefused
from fedcore.local.sgd import rows_trained

_PLAIN = frozenset({"sgd", "fedprox", "feddyn"})  # algorithms whose server part counts no steps
_FLOAT = 4
_VIEWS = frozenset({"flatten", "picture"})  # layers that make no numbers of their own
_VECTORS = 4  # that training holds: model, gradient, momentum, update
_MEGABYTE, _KILOBYTE = 1e6, 1e3


def pace(
    config: Config, rows: Mapping[str, int], devices: Devices | None, sized: bool, spec: ModelSpec | None
) -> Timing | None:
    """The timing of rounds among clients with `rows` training rows each; None on the real clock, without `devices`.

    `sized`: cohorts are of ``cohort.size``. `spec` is the model, None while the features are not known.
    Raises `PlanRefused` and `BadConfig`.
    """
    cohort, private = config.cohort, config.privacy.mode != "none"
    if devices is None:
        _refuse_unused(config)
        return None
    if cohort.over_select > 1 and not sized:
        raise PlanRefused(
            f"cohort.over_select {cohort.over_select:g} with cohort.sampling {cohort.sampling}: a round would not know how "
            "many replies to wait for; set cohort.sampling: uniform"
        )
    if private:
        _refuse_unprovable(config)
    batches = batch_sizes(config, spec) if spec else {}

    def trained(client: str) -> int:
        size = batches.get(devices.kind(client).name, config.local.batch_size)
        return rows_trained(config.local, rows[client], size)

    waits_for = cohort.size if cohort.over_select > 1 else None
    return Timing(devices, trained, cohort.deadline_s, waits_for, private, batches)


def batch_sizes(config: Config, spec: ModelSpec) -> dict[str, int]:
    """The batch size of each class of devices whose memory does not hold a batch of the settings.

    A device needs room for a few vectors of the model's size, and for each row of a batch. Raises
    `BadConfig` for a class that cannot hold one row, `PlanRefused` where other batches would break something.
    """
    short = [kind for kind in config.time.classes if kind.memory_mb is not None]
    if not short:
        return {}
    row = _row_bytes(config.time, spec)
    model = _VECTORS * _FLOAT * build_model(spec).layout.size
    sizes = {kind.name: _fits(kind, model, row) for kind in short}
    smaller = {name: size for name, size in sizes.items() if size < config.local.batch_size}
    if smaller:
        _refuse_other_batches(config, next(iter(smaller)))
    return smaller


def _fits(kind: DeviceClass, model: int, row: float) -> int:
    """How many rows fit beside the model."""
    assert kind.memory_mb is not None, "asked only where memory is limited"
    size = int((kind.memory_mb * _MEGABYTE - model) // row)
    if size < 1:
        needed = ceil((model + row) / _KILOBYTE) * _KILOBYTE / _MEGABYTE
        raise BadConfig(
            "time.classes",
            f"memory_mb {kind.memory_mb:g} of class {kind.name}",
            f"training needs {needed:g} MB",
        )
    return size


def _row_bytes(time: TimeConfig, spec: ModelSpec) -> float:
    """What one row of a batch takes: its features, and each layer's values and their gradients."""
    if time.row_kb is not None:
        return time.row_kb * _KILOBYTE
    if spec.factory is not None:
        raise BadConfig("time.row_kb", None, f"must say what a row takes while {spec.factory} trains on it")
    return float(_FLOAT * (prod(spec.input_shape) + 2 * sum(_values(layer) for layer in layers(spec))))


def _values(layer: Layer) -> int:
    """The numbers that a layer makes of one row, of each of its time steps if it has such."""
    if layer.kind in _VIEWS:
        return 0
    if "units" in layer.options:
        gates = layer.parameters[0].shape[0]
        return layer.into[0] * (gates + layer.options["units"])
    return prod(layer.out)


def _refuse_unused(config: Config) -> None:
    """Raise `PlanRefused` for settings of a virtual clock without one."""
    if config.cohort.over_select > 1:
        raise PlanRefused(
            f"cohort.over_select {config.cohort.over_select:g} with time.mode real: nobody would be late; "
            "set time.mode: virtual"
        )
    if config.time != TimeConfig():
        changed = [key for key, value in vars(TimeConfig()).items() if getattr(config.time, key) != value]
        raise PlanRefused(
            f"time.{changed[0]} with time.mode real would change nothing; set time.mode: virtual"
        )


def _refuse_unprovable(config: Config) -> None:
    """Raise `PlanRefused` for what no accountant here covers.

    With a deadline alone each client answers or not whoever else is asked, so it takes part at most as
    often as it is drawn: what the accountant counts on still holds.
    """
    cohort, mode = config.cohort, config.privacy.mode
    if cohort.over_select > 1:
        raise PlanRefused(
            f"privacy.mode {mode} with cohort.over_select {cohort.over_select:g}: whose reply counts would depend on who "
            "else was asked, which no accountant here covers; set cohort.over_select: 1"
        )
    if config.time.battery:
        raise PlanRefused(
            f"privacy.mode {mode} with time.battery: who can answer would depend on the cohorts drawn before, which no "
            "accountant here covers; remove time.battery"
        )


def _refuse_other_batches(config: Config, kind: str) -> None:
    """Raise `PlanRefused` where the batch size is part of what the server computes or accounts for."""
    if config.local.algorithm not in _PLAIN:
        raise PlanRefused(
            f"memory_mb of class {kind} in time.classes with local.algorithm {config.local.algorithm}: the server counts "
            f"each client's steps from local.batch_size, and the class takes smaller batches; "
            f"set local.algorithm: {' or '.join(sorted(_PLAIN))}, or lower local.batch_size"
        )
    if config.privacy.mode == "record":
        raise PlanRefused(
            f"memory_mb of class {kind} in time.classes with privacy.mode record: what a step costs is accounted for "
            "with local.batch_size, and the class takes smaller batches; lower local.batch_size"
        )
