"""What was used last is kept within its bound."""

from fedcore.local.recent import Recent


def test_those_not_asked_for_longest_go_first():
    recent: Recent[str] = Recent(10)
    recent.keep("a", "A", 4)
    recent.keep("b", "B", 4)
    assert recent.get("a") == "A"
    recent.keep("c", "C", 4)
    assert (recent.get("a"), recent.get("b"), recent.get("c")) == ("A", None, "C")


def test_the_last_one_stays_however_large_and_nothing_after_clearing():
    recent: Recent[str] = Recent(10)
    recent.keep("a", "A", 4)
    assert recent.keep("b", "B", 40) == "B"
    assert (recent.get("a"), recent.get("b")) == (None, "B")
    recent.clear()
    assert recent.get("b") is None
    recent.keep("c", "C", 4)
    recent.keep("d", "D", 4)
    assert recent.get("c") == "C"
