import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.errors import AssayError
from assay.registry.log import PromotionLog, new_event


def test_later_lines_of_an_event_override_earlier_ones(tmp_path):
    log = PromotionLog(tmp_path / "a" / "log.jsonl")
    first, second = (new_event("promotion", "m", version, step="intent") for version in (1, 2))
    for line in (first, second, {"id": first["id"], "step": "done"}):
        log.append(line)
    assert list(log.events().values()) == [{**first, "step": "done"}, second]


@given(cut=st.integers(0, 200))
def test_a_writer_killed_anywhere_in_a_line_loses_that_line_alone(tmp_path_factory, cut):
    log = PromotionLog(tmp_path_factory.mktemp("log") / "log.jsonl")
    events = [new_event("promotion", "m", version, reason="é") for version in (1, 2, 3)]
    log.append(events[0])
    whole = log.path.read_bytes()
    log.append(events[1])
    torn = log.path.read_bytes()[: len(whole) + cut]
    log.path.write_bytes(torn)
    survived = [events[1]] if len(torn.rstrip(b"\n")) > len(whole) and _whole(torn[len(whole) :]) else []
    log.append(events[2])
    assert list(log.events().values()) == [events[0], *survived, events[2]]


def _whole(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def test_a_foreign_line_is_named(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"id": "a"}\n[1]\n')
    with pytest.raises(AssayError, match=r"log\.jsonl:2 is not an event"):
        PromotionLog(tmp_path / "log.jsonl").events()


def test_ids_sort_by_time():
    ids = [new_event("gate", "m", 1)["id"] for _ in range(100)]
    stamps = [text[:21] for text in ids]
    assert stamps == sorted(stamps) and len(set(ids)) == 100
