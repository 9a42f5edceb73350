"""Shakespeare's speaking roles: 1,115 clients, each the lines of one role of one play; the next character is to be said.

A row is a window of 80 characters as token numbers, its label the character that follows, as in
LEAF (Caldas et al. 2018, arXiv:1812.01097). Windows start every 20 characters, where LEAF's start
at every character. The first four fifths of a role's lines are for training, the rest for the
test, as in McMahan et al. 2017, arXiv:1602.05629: no window reaches over that border.
"""

import lzma
import re
from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.config import DataConfig
from fedcore.data.places import find_folder
from fedcore.data.raw import CLIENT, Raw
from fedcore.data.schema import Schema
from fedcore.data.shards import TEST, TRAIN
from fedcore.errors import BadData

WINDOW, STEP = 80, 20
ALPHABET = " !$',-.0123456789:;?ABCDEFGHIJKLMNOPQRSTUVWXYZ[]abcdefghijklmnopqrstuvwxyz"
SCHEMA = Schema(
    "shakespeare",
    "classification",
    "next",
    tuple(ALPHABET),
    shape=(WINDOW,),
    split="split",
    tokens=len(ALPHABET),
)


def load(config: DataConfig) -> Raw:
    """The windows of all roles that have one; a role is named ``Play.ROLE``, in letters, digits and dashes."""
    parts = [part for role, lines in _roles().items() for part in _windows(role, lines)]
    x, following, sides, clients = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Raw(SCHEMA, arrays={"x": x, "next": following, "split": sides, CLIENT: clients})


def tokens(text: str) -> NDArray[np.int8]:
    """Places of the characters of `text` in `ALPHABET` (n,). Raises `ValueError` for any other character.

    >>> tokens("To be").tolist()
    [39, 62, 0, 49, 52]
    """
    return np.array([ALPHABET.index(character) for character in text], np.int8)


def _roles() -> dict[str, list[str]]:
    """Lines of each role, in reading order."""
    folder = find_folder(
        "shakespeare_roles",
        "lines.tsv.xz",
        "put lines.tsv.xz (play, role, act.scene.line, text in reading order) into a folder shakespeare_roles there",
    )
    roles: dict[str, list[str]] = defaultdict(list)
    try:
        with lzma.open(folder / "lines.tsv.xz", "rt", encoding="utf-8") as stream:
            for line in stream:
                play, role, _, text = line.rstrip("\n").split("\t")
                roles[re.sub(r"\W+", "-", play).strip("-") + "." + re.sub(r"\W+", "-", role).strip("-")] += [
                    text
                ]
    except (OSError, EOFError, ValueError, lzma.LZMAError) as error:
        raise BadData(
            "shakespeare", f"{folder / 'lines.tsv.xz'} cannot be read ({error})", "copy it again"
        ) from None
    return roles


def _windows(role: str, lines: list[str]) -> list[tuple[NDArray[Any], ...]]:
    """Windows (n, 80), what follows each, the side and the role's name, of both sides that are long enough."""
    border = -(-4 * len(lines) // 5)
    found: list[tuple[NDArray[Any], ...]] = []
    for side, text in ((TRAIN, " ".join(lines[:border])), (TEST, " ".join(lines[border:]))):
        starts = np.arange(0, len(text) - WINDOW, STEP)
        if not len(starts):
            continue
        try:
            numbers = tokens(text)
        except ValueError:
            odd = sorted(set(text) - set(ALPHABET))[0]
            raise BadData(
                "shakespeare", f"{role} says {odd!r}, which is not in the alphabet", "copy it again"
            ) from None
        following = np.array(list(text))[starts + WINDOW]
        windows = np.lib.stride_tricks.sliding_window_view(numbers, WINDOW)[starts]
        found.append((windows, following, np.full(len(starts), side), np.full(len(starts), role)))
    return found
