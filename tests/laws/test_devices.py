"""The virtual clock: pure, exact in its shares, never before its time, and the same for one device as for all."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.clock import Charges, Devices
from fedcore.config import config_from
from fedcore.errors import BadConfig, BadInput

# FLARE's delays: of 16 devices some take 100, some 200, some 400 seconds.
FLARE = [{"name": f"d{s}", "share": n, "delay_s": s} for s, n in ((100, 8), (200, 4), (400, 4))]
DAY = {"period_s": 100.0, "windows": [[10, 30], [60, 70]]}


def devices(clients: int = 16, seed: int = 1, **time: object) -> Devices:
    return Devices.of(config_from({"seed": seed, "time": time}), [f"c{i:05d}" for i in range(clients)])


def test_every_class_has_its_share_of_the_clients():
    fleet = devices(16, classes=FLARE)
    delays = [fleet.duration(client, 0, 100, 1000) for client in fleet.clients]
    assert sorted(delays) == [100.0] * 8 + [200.0] * 4 + [400.0] * 4


@given(st.integers(1, 60), st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_shares_are_kept_to_within_one_client(clients, shares, seed):
    kinds = [{"name": f"k{i}", "share": share} for i, share in enumerate(shares)]
    counts = np.bincount(devices(clients, seed, classes=kinds).kinds, minlength=len(shares))
    assert counts.sum() == clients
    assert np.abs(counts - clients * np.array(shares) / sum(shares)).max() <= 1


def test_work_is_download_training_and_upload():
    slow = {"seconds_per_row": 0.5, "delay_s": 3, "down_mbps": 8, "up_mbps": 2, "latency_s": 0.25}
    work = devices(1, classes=[slow]).work("c00000", 4, 20, 1_000_000, 500_000)
    assert work == (0.25 + 1.0, 3 + 10.0, 0.25 + 2.0)
    assert work.total == 16.5


def test_jitter_is_of_the_client_and_the_task_and_has_its_deviation():
    fleet = devices(1, classes=[{"delay_s": 1.0}], jitter=0.5)
    taken = [fleet.duration("c00000", number, 1, 0) for number in range(2000)]
    assert taken == [fleet.duration("c00000", number, 1, 0) for number in range(2000)]
    logs = np.log(taken)
    # 5 standard errors each: a right clock is refused with a chance below 2e-6
    assert abs(logs.mean()) < 5 * 0.5 / np.sqrt(2000)
    assert abs(logs.std() - 0.5) < 5 * 0.5 / np.sqrt(4000)


@pytest.mark.parametrize(
    ("law", "deviation"), [("exponential", 1.0), ("half_normal", (np.pi / 2 - 1) ** 0.5)]
)
def test_a_part_of_the_time_may_be_exponential_or_half_normal_around_the_same_mean(law, deviation):
    for part in (1.0, 0.5):
        fleet = devices(1, classes=[{"delay_s": 10.0}], jitter=part, jitter_law=law)
        taken = np.array([fleet.duration("c00000", number, 1, 0) for number in range(2000)])
        assert taken.min() >= 10 * (1 - part)
        # 5 standard errors: a right clock is refused with a chance below 1e-6
        assert abs(taken.mean() - 10) < 5 * 10 * part * deviation / np.sqrt(2000)
        assert taken.std() == pytest.approx(10 * part * deviation, rel=0.15)
    with pytest.raises(BadConfig, match="time.jitter"):
        devices(1, jitter=1.5, jitter_law=law)


@given(st.floats(0, 1e5), st.integers(0, 99), st.sampled_from(["random", "none"]))
@settings(deadline=None, max_examples=60)
def test_a_device_starts_within_a_window_and_never_before_it_is_asked(now, seed, phase):
    fleet = devices(5, seed, availability={**DAY, "phase": phase})
    for client, begin in zip(fleet.clients, fleet.phases, strict=True):
        start = fleet.start(client, now)
        inside = (start - begin) % 100.0
        assert now <= start <= now + 100
        assert any(a - 1e-6 <= inside < b for a, b in ((10, 30), (60, 70))) or inside > 100 - 1e-6
        assert fleet.start(client, start) == pytest.approx(start, abs=1e-6)


@given(st.floats(0, 1e4), st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_all_at_once_is_each_for_itself(now, seed):
    fleet = devices(7, seed, availability=DAY, battery={"work_s": 50, "charge_s": 80, "limit": 0.5})
    charges = Charges(np.linspace(-0.2, 1, 7), np.linspace(0, 2 * now, 7))
    alone = [
        fleet.start(client, now, (float(charges.level[i]), float(charges.since[i])))
        for i, client in enumerate(fleet.clients)
    ]
    assert fleet.starts(now, charges).tolist() == alone
    assert fleet.starts(now).tolist() == [fleet.start(client, now) for client in fleet.clients]


def test_windows_open_again_each_period_at_a_phase_of_the_clients_own():
    fleet = devices(200, availability={"period_s": 10, "windows": [[0, 5]]})
    share = np.mean([fleet.starts(t) == t for t in np.arange(0, 10, 0.5)], axis=0)
    assert set(share.tolist()) <= {0.5}
    assert np.ptp(fleet.phases) > 9
    assert set(devices(9, availability={**DAY, "phase": "none"}).phases.tolist()) == {0.0}


def test_a_flat_device_waits_until_it_is_charged_to_the_limit():
    fleet = devices(1, battery={"work_s": 100, "charge_s": 1000, "limit": 0.3})
    level = fleet.drained(0.5, 40)
    assert level == pytest.approx(0.1)
    assert fleet.start("c00000", 7.0, (level, 5.0)) == pytest.approx(205)
    assert fleet.level(level, 5.0, 205.0) == pytest.approx(0.3)
    assert fleet.level(level, 5.0, 1e9) == 1.0
    plain = devices(1)
    assert (plain.level(0.1, 0, 1), plain.drained(0.1, 99), plain.start("c00000", 7.0, (0.0, 7.0))) == (
        1,
        0.1,
        7,
    )


def test_dropouts_have_their_rate_and_are_of_the_round():
    fleet = devices(100, dropout=0.3, classes=[{"name": "a"}, {"name": "b", "dropout": 0.0}])
    lost = np.array([[fleet.drops(client, number) for client in fleet.clients] for number in range(100)])
    assert not lost[:, fleet.kinds == 1].any()
    weak = lost[:, fleet.kinds == 0]
    # 5 standard deviations of a binomial share of 5000: a right clock is refused with a chance below 1e-6
    assert abs(weak.mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / weak.size)
    assert weak.any(axis=0).all()
    parts = [fleet.part(client, 3) for client in fleet.clients]
    assert 0 <= min(parts) < 0.1
    assert 0.9 < max(parts) < 1


def test_a_hundred_thousand_devices_keep_two_numbers_each():
    fleet = devices(100_000, availability={}, classes=FLARE)
    assert fleet.kinds.nbytes + fleet.phases.nbytes == 1_600_000
    assert fleet.starts(3600.0).shape == (100_000,)


@pytest.mark.parametrize("windows", [[], [[5, 5]], [[10, 20], [15, 30]], [[0, 101]], [[9, 3]]])
def test_windows_that_are_none_are_refused(windows):
    with pytest.raises(BadConfig, match=r"time\.availability\.windows: must be \[from, to\] pairs"):
        devices(1, availability={"period_s": 100, "windows": windows})


def test_two_classes_of_one_name_and_unknown_clients_are_refused():
    with pytest.raises(BadConfig, match="a name of its own"):
        devices(2, classes=[{}, {}])
    with pytest.raises(BadInput, match="there is no device x"):
        devices(2).kind("x")
