"""What the sections are made of: closed dataclasses, and the kinds of value they hold."""

import re
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

CLOSED = ConfigDict(extra="forbid", strict=False, allow_inf_nan=False)


def _spelled(pattern: str, words: str) -> AfterValidator:
    """Text that matches `pattern` whole; other text is answered with `words`, which say what does."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise PydanticCustomError("spelling", "must be {words}", {"words": words})
        return text

    return AfterValidator(check)


Count = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[
    str,
    _spelled(
        r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}",
        "up to 100 letters, digits, '.', '_' and '-', the first a letter or a digit",
    ),
]
Device = Annotated[str, _spelled(r"cpu|cuda(:[0-9]+)?", "cpu, cuda or cuda:N with the number of a GPU")]
PositiveInt = Annotated[int, Field(ge=1)]
