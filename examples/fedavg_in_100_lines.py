"""Federated averaging in one file of plain numpy: the same model as fedcore, byte for byte.

    fedcore simulate --preset digits          writes runs/data/sites, trains, shows the model's sha256
    python examples/fedavg_in_100_lines.py    trains again, without fedcore: the same sha256

Left out: checks, crash safety, privacy, tracking, devices. McMahan et al. 2017, arXiv:1602.05629.
"""

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # sums in the same order on any machine
import numpy as np

SEED, TEST_FRACTION = 1, 0.2
CLASSES, HIDDEN, LR, MOMENTUM, EPOCHS, BATCH = 10, 32, 0.1, 0.9, 2, 32


def generator(*names: str | int) -> np.random.Generator:
    """Random numbers of their own for each purpose, round and client."""
    words = "\x1f".join([str(SEED), *(f"{type(name).__name__}:{name}" for name in names)]).encode()
    return np.random.Generator(np.random.PCG64(int.from_bytes(hashlib.sha256(words).digest(), "little")))


def read(site: Path) -> tuple[np.ndarray, ...]:
    """A client's rows: x (n, pixels) and y (n,), the digit, to train on; x and y to test on."""
    rows = np.load(site / "rows.npz")
    x, y = rows["x"].reshape(len(rows["y"]), -1), rows["y"]
    test = generator("split", site.name).random(len(y)) < TEST_FRACTION
    return x[~test], y[~test], x[test], y[test]


def scale(clients: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each pixel, from each client's count, mean and variance: no row leaves it."""
    told = [(len(x), x.mean(0, np.float64), x.var(0, np.float64)) for x in clients]
    rows = sum(count for count, _, _ in told)
    mean = sum(count * own for count, own, _ in told) / rows
    unit = np.sqrt(sum(count * (spread + (own - mean) ** 2) for count, own, spread in told) / rows)
    return mean.astype(np.float32), np.where(unit > 1e-12, unit, 1).astype(np.float32)


def layers(model: np.ndarray, pixels: int) -> list[np.ndarray]:
    """Views into the flat model: (hidden, pixels), (hidden,), (classes, hidden), (classes,)."""
    w1, b1, w2, b2 = np.split(model, np.cumsum([HIDDEN * pixels, HIDDEN, CLASSES * HIDDEN]))
    return [w1.reshape(HIDDEN, pixels), b1, w2.reshape(CLASSES, HIDDEN), b2]


def forward(model: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, classes), and the hidden layer (n, hidden) they come from."""
    w1, b1, w2, b2 = layers(model, x.shape[1])
    hidden = np.maximum(x @ w1.T + b1, 0)
    out = hidden @ w2.T + b2
    shifted = np.exp(out - out.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True), hidden


def gradient(model: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of the mean cross-entropy, by back-propagation."""
    back, hidden = forward(model, x)
    back[np.arange(len(y)), y] -= 1
    back /= np.float32(len(y))
    inner = (back @ layers(model, x.shape[1])[2]) * (hidden > 0)
    return np.concatenate([(inner.T @ x).ravel(), inner.sum(0), (back.T @ hidden).ravel(), back.sum(0)])


def update(model: np.ndarray, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a client sends back: the model after its epochs of SGD, minus the model it got."""
    trained, velocity = model.copy(), np.zeros_like(model)
    for _ in range(EPOCHS):
        for batch in np.split(rng.permutation(len(y)), range(BATCH, len(y), BATCH)):
            velocity = np.float32(MOMENTUM) * velocity + gradient(trained, x[batch], y[batch])
            trained -= np.float32(LR) * velocity
    return trained - model


def fedavg(sites: Path, rounds: int) -> Iterator[tuple[np.ndarray, float]]:
    """After each round the model, and its accuracy on all clients' test rows."""
    clients = {site.name: read(site) for site in sorted(sites.iterdir()) if site.is_dir()}
    mean, unit = scale([x for x, *_ in clients.values()])
    trains = {name: ((x - mean) / unit, y) for name, (x, y, *_) in clients.items()}
    tests = [((x - mean) / unit, y) for *_, x, y in clients.values()]
    rng, model = generator("init"), np.empty(HIDDEN * (len(mean) + 1 + CLASSES) + CLASSES, np.float32)
    for part, inputs in zip(layers(model, len(mean)), [len(mean)] * 2 + [HIDDEN] * 2, strict=True):
        part[...] = rng.uniform(-1 / np.sqrt(inputs), 1 / np.sqrt(inputs), part.shape)
    rows = sum(len(y) for _, y in trains.values())
    for number in range(rounds):
        step = np.zeros(model.size, np.longdouble)  # wide enough that only the mean is rounded
        for name, (x, y) in trains.items():
            step += np.longdouble(len(y)) * update(model, x, y, generator("train", number, name))
        model = (model + (step / rows).astype(np.float32).astype(np.float64)).astype(np.float32)
        right = sum(int((forward(model, x)[0].argmax(axis=1) == y).sum()) for x, y in tests)
        yield model, right / sum(len(y) for _, y in tests)


if __name__ == "__main__":
    for vector, accuracy in fedavg(Path(*sys.argv[1:] or ["runs/data/sites"]), rounds=20):
        print(f"accuracy {accuracy:.4f}  model sha256 {hashlib.sha256(vector.tobytes()).hexdigest()}")
