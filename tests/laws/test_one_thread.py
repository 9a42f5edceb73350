"""BLAS has one thread while anybody asks, whichever thread asks and whenever it was loaded; then what it had before."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from threadpoolctl import ThreadpoolController, threadpool_limits

from fedcore.one_thread import one_thread

needs_two = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="on one core BLAS has one thread anyway")


def threads() -> set[int]:
    return {library.num_threads for library in ThreadpoolController().select(user_api="blas").lib_controllers}


@needs_two
def test_the_last_that_is_through_puts_back_what_was_before():
    with threadpool_limits(2, user_api="blas"):
        with one_thread():
            with one_thread():
                assert threads() == {1}
            assert threads() == {1}
        assert threads() == {2}


@needs_two
@pytest.mark.parametrize("main_too", [False, True])
def test_it_belongs_to_no_thread(main_too):
    entered, left = Barrier(2, timeout=30), Barrier(2, timeout=30)

    def first() -> set[int]:
        with one_thread():
            entered.wait()
            found = threads()
        left.wait()
        return found

    def last() -> set[int]:
        with one_thread():
            entered.wait()
            left.wait()
            return threads()

    with (
        threadpool_limits(2, user_api="blas"),
        ThreadPoolExecutor(2) as pool,
    ):  # this thread set a limit first
        for _ in range(2):
            if main_too:
                with one_thread():
                    asked = [pool.submit(first), pool.submit(last)]
                    assert [waiting.result() for waiting in asked] == [{1}, {1}]
                    assert threads() == {1}
            else:
                asked = [pool.submit(first), pool.submit(last)]
                assert [waiting.result() for waiting in asked] == [{1}, {1}]
            assert threads() == {2}


def test_an_error_within_puts_back_what_was_before():
    before = threads()
    with pytest.raises(ZeroDivisionError), one_thread():
        1 / 0  # noqa: B018
    assert threads() == before


@needs_two
def test_a_round_is_computed_so(private_plan, private_round):
    found = []

    def script(task, client) -> None:
        found.append(threads())

    with threadpool_limits(2, user_api="blas"):
        private_round(private_plan(), script)
        assert threads() == {2}
    assert found
    assert all(seen == {1} for seen in found)


LATER = """
from concurrent.futures import ThreadPoolExecutor
from threadpoolctl import ThreadpoolController
from fedcore.one_thread import one_thread
import numpy

def libraries():
    return {l.filepath: l.num_threads for l in ThreadpoolController().select(user_api="blas").lib_controllers}

def inside():
    with one_thread():
        return libraries()

free = libraries()
with one_thread(), ThreadPoolExecutor(1) as pool:
    import scipy.linalg
    assert len(libraries()) > len(free), "scipy brings a BLAS of its own"
    assert set(pool.submit(inside).result().values()) == {1}
    assert set(libraries().values()) == {1}
assert set(libraries().values()) == set(free.values()), (free, libraries())
"""

SAME = """
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from fedcore.adapters import numpy as plain
from fedcore.adapters.model import ModelSpec, Training, build_model
from fedcore.one_thread import one_thread
from fedcore.rng import generator

plain.PAYS_FROM = 0
model = build_model(ModelSpec("numpy", "mlp", (200,), None, (28, 28), 10, "classification"))
rng = np.random.default_rng(1)
x, y = rng.normal(size=(60, 28, 28)).astype(np.float32), rng.integers(0, 10, 60).astype(np.float32)
start = model.init(rng)

def trained(seed):
    return model.train(start, x, y, Training(0.1, 0.0, 0.0, 1, 20), generator(seed, "t"))[0].tobytes()

with one_thread(), ThreadPoolExecutor(2) as pool:  # as an engine does
    together = list(pool.map(trained, range(6)))
assert together == [trained(seed) for seed in range(6)]
"""


@pytest.mark.parametrize("script", [LATER, SAME], ids=["a BLAS loaded within", "training in threads"])
def test_in_a_new_process_with_threads_as_users_have_them(script):
    free = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    subprocess.run([sys.executable, "-c", script], check=True, env=free)
