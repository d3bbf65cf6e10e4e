import itertools
import json
import multiprocessing
import os
import subprocess
import sys

import pytest

from assay.errors import AssayError, UserError
from assay.registry import Lineage, Registry, history, promote, promote_decided, repair, rollback
from tests.registry.conftest import CLASSES
from tests.registry.workers import promote_in_rounds

ROUNDS = 4


def aliases(registry):
    found = registry.aliases("digits")
    return found.get("champion"), found.get("previous_champion")


def moves(registry):
    return [e for e in history("digits", registry=registry) if e["kind"] in ("promotion", "rollback")]


@pytest.fixture
def third(registry, models, pixels) -> int:
    """A third version."""
    return registry.register("digits", models[2], pixels, lineage=Lineage("d1"), class_names=CLASSES)


def test_promotions_and_rollbacks_move_both_aliases(registry, third):
    assert promote("digits", 1, reason="first").previous_champion is None
    assert promote("digits", 2, reason="better").sentence == "digits/2 is the champion in place of version 1."
    assert aliases(registry) == (2, 1)
    assert promote("digits", third, reason="better still").previous_champion == 2
    told = rollback("digits", reason="night images fail").sentence
    assert told == "digits/2 is the champion again, and version 3 is now the previous champion."
    assert aliases(registry) == (2, 3)
    assert [(m["kind"], m["champion"], m["reason"]) for m in moves(registry)] == [
        ("promotion", [None, 1], "first"),
        ("promotion", [1, 2], "better"),
        ("promotion", [2, 3], "better still"),
        ("rollback", [3, 2], "night images fail"),
    ]
    assert all(m["step"] == "done" and m["actor"] for m in moves(registry))


def test_promoting_the_champion_again_changes_nothing(registry):
    promote("digits", 1, reason="first")
    assert promote("digits", 1, reason="retry").sentence == "digits/1 is the champion already."
    assert len(moves(registry)) == 1


def test_a_shared_tracking_server_tells_the_same_history(registry):
    promote("digits", 1, reason="first")
    promote("digits", 2, reason="second")
    rollback("digits")
    here = history("digits")
    registry.log.path.unlink()
    assert history("digits") == here
    assert repair("digits") == []


def test_what_cannot_be_done_is_one_sentence(registry):
    with pytest.raises(UserError, match="digits has no previous champion to roll back to"):
        rollback("digits")
    with pytest.raises(UserError, match="digits has no version or alias '9': it has 1, 2"):
        promote("digits", 9, reason="typo")
    with pytest.raises(UserError, match="needs a reason"):
        promote("digits", 1, reason=" ")
    with pytest.raises(UserError, match="no registered model 'letters'"):
        history("letters")
    assert aliases(registry) == (None, None)


def test_a_champion_deleted_elsewhere_is_reported_and_can_be_rolled_back(registry):
    promote("digits", 1, reason="first")
    promote("digits", 2, reason="second")
    registry.client.delete_model_version("digits", "2")
    (report,) = repair("digits")
    assert report.startswith("digits has no champion, because version 2 was deleted outside Assay")
    assert rollback("digits").sentence == "digits/1 is the champion again, and there is no previous champion now."
    assert (aliases(registry), repair("digits")) == ((1, None), [])


def test_a_champion_moved_by_hand_is_reported(registry):
    promote("digits", 1, reason="first")
    registry.client.set_registered_model_alias("digits", "champion", "2")
    assert repair("digits") == ["The champion of digits is version 2, moved outside Assay from version 1."]


def test_a_move_overtaken_by_another_machine_is_not_called_done(registry, monkeypatch):
    promote("digits", 1, reason="first")
    set_alias = registry.client.set_registered_model_alias

    def overtaken(name, alias, version):
        set_alias(name, alias, "1" if alias == "champion" else version)

    monkeypatch.setattr(registry.client, "set_registered_model_alias", overtaken, raising=False)
    with pytest.raises(AssayError, match="moved by another machine at the same moment"):
        promote("digits", 2, reason="second", registry=registry)
    assert moves(registry)[-1]["step"] == "superseded"


def test_promotions_at_the_same_moment_leave_one_consistent_state(registry, third):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    workers = [context.Process(target=promote_in_rounds, args=(v, ROUNDS, barrier)) for v in (1, 2, third)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    told = moves(registry)
    # In each round at least two versions are not the champion already.
    assert 2 * ROUNDS <= len(told) <= 3 * ROUNDS and all(move["step"] == "done" for move in told)
    for before, after in itertools.pairwise(told):
        assert after["champion"][0] == before["champion"][1]
        assert after["previous_champion"][1] == before["champion"][1]
    assert aliases(registry) == (told[-1]["champion"][1], told[-1]["previous_champion"][1])
    assert repair("digits") == []


KILLED = """
import os, signal, sys
from assay.registry import Registry, promote
registry = Registry()
method, calls = getattr(registry.client, sys.argv[1]), []
def killed(*args):
    if len(calls) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    calls.append(args)
    return method(*args)
setattr(registry.client, sys.argv[1], killed)
promote('digits', 2, reason='second', registry=registry)
"""


def promote_and_die(method: str, calls: int) -> None:
    """Promote version 2 in a process that is killed when it makes a call of MLflow's client."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", KILLED, method, str(calls)]
    assert subprocess.run(command, env=environment, check=False).returncode == -9


@pytest.mark.parametrize(
    ("method", "calls", "left"),
    [
        ("set_registered_model_alias", 0, (1, None)),
        ("set_registered_model_alias", 1, (1, 1)),
        ("set_registered_model_tag", 0, (2, 1)),
    ],
    ids=["before the aliases", "between the aliases", "after the aliases"],
)
def test_a_promotion_killed_on_the_way_is_completed_by_the_next_command(registry, method, calls, left):
    promote("digits", 1, reason="first")
    promote_and_die(method, calls)
    assert aliases(registry) == left
    assert repair("digits") == ["The interrupted promotion of digits/2 was completed."]
    assert aliases(registry) == (2, 1)
    assert repair("digits") == []
    assert [e["kind"] for e in history("digits")][-2:] == ["promotion", "repair"]
    assert rollback("digits").champion == 1


def interrupt_between_aliases(registry, third, monkeypatch) -> None:
    """Leave 2 -> 3 half-done: `previous_champion` has moved, `champion` has not."""
    promote("digits", 1, reason="first")
    promote("digits", 2, reason="second")
    with monkeypatch.context() as patch:
        set_alias = registry.client.set_registered_model_alias

        def dying(name, alias, version):
            if alias == "champion":
                raise KeyboardInterrupt
            set_alias(name, alias, version)

        patch.setattr(registry.client, "set_registered_model_alias", dying, raising=False)
        with pytest.raises(KeyboardInterrupt):
            promote("digits", third, reason="third", registry=registry)
    assert aliases(registry) == (2, 2)


def test_an_interrupted_promotion_of_a_version_deleted_since_is_undone(registry, third, monkeypatch):
    interrupt_between_aliases(registry, third, monkeypatch)
    registry.client.delete_model_version("digits", str(third))
    (report,) = repair("digits")
    assert report == "The interrupted promotion of digits/3 was undone, because that version was deleted since."
    assert (aliases(registry), repair("digits")) == ((2, 1), [])


def test_an_interrupted_promotion_that_others_overtook_is_left(registry, third, monkeypatch):
    interrupt_between_aliases(registry, third, monkeypatch)
    Registry().client.set_registered_model_alias("digits", "champion", "1")
    reports = repair("digits")
    assert "was left, because the champion was moved elsewhere since" in reports[0]
    assert aliases(registry)[0] == 1


def test_a_decision_is_promoted_only_as_it_was_made(registry, tmp_path):
    decided = {
        "name": "digits",
        "version": 2,
        "decision": "promote",
        "champion": None,
        "numbers": {},
        "reasons": ["ok"],
    }

    def run(**changes):
        (tmp_path / "decision.json").write_text(json.dumps({**decided, **changes}))
        return promote_decided("digits", 2, decision=tmp_path / "decision.json", metrics=tmp_path / "metrics.json")

    with pytest.raises(UserError, match="does not say to promote digits/2: it says to keep digits/2"):
        run(decision="keep")
    with pytest.raises(UserError, match="it says to promote digits/1"):
        run(version=1)
    assert run() == run() == {"champion": 2.0}
    assert moves(registry)[-1]["decision"]["decision"] == "promote"
    promote("digits", 1, reason="by hand")
    with pytest.raises(UserError, match="was version none when the gate decided and is 1 now: run the gate again"):
        run()
