"""Which version is champion: moved under a lock, written down before and after, and mended after a crash.

A move is written to the log as an intent, then ``previous_champion`` moves, then ``champion``, then the log
gets its done line. Whoever comes next finds an intent without a done line and finishes the move, or undoes it
where its target is gone. The lock covers the processes that share a state folder; MLflow has no lock of its
own, so between machines that share a tracking server each move is verified by reading the aliases back.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.errors import AssayError, UserError
from assay.files import write_json
from assay.registry.log import Event, new_event
from assay.registry.models import CHAMPION, EVENT_TAG, PREVIOUS_CHAMPION, Registry, Version, actor

_MIRRORED_REASON = 1000


@dataclass(frozen=True)
class Move:
    """Where the two aliases point after a promotion or a rollback, and the sentence that says so."""

    name: str
    champion: int
    previous_champion: int | None
    sentence: str


def promote(
    name: str,
    version: int | str,
    *,
    reason: str,
    decision: Mapping[str, Any] | None = None,
    by: str | None = None,
    registry: Registry | None = None,
) -> Move:
    """Make a version the champion; the former champion becomes ``previous_champion``.

    Promoting the version that is champion already changes nothing, so a retried step is harmless.

    Args:
        name: the registered model.
        version: a number or an alias.
        reason: kept in the history.
        decision: of the gate that this promotion follows, with the ``champion`` it compared with.
        by: who promotes; default the pipeline run, else the user.
        registry: default that of the project around the current folder.

    Raises:
        UserError: there is no such model or version, the reason is empty, or the champion is not the one
            that the decision compared with.
        AssayError: another machine moved the aliases at the same moment.
    """
    if not reason.strip():
        raise UserError(f"A promotion of {name} needs a reason: it is what the history tells later.")
    registry = registry or Registry()
    with registry.lock():
        repair(name, registry=registry)
        target = registry.resolve(name, version)
        aliases = registry.aliases(name)
        former, previous = aliases.get(CHAMPION), aliases.get(PREVIOUS_CHAMPION)
        if former == target.number:
            return Move(name, former, previous, f"{name}/{former} is the champion already.")
        if decision is not None and decision["champion"] != former:
            raise UserError(
                f"The champion of {name} was version {decision['champion'] or 'none'} when the gate decided "
                f"and is {former or 'none'} now: run the gate again."
            )
        kept = previous if previous != target.number else None
        event = _intent("promotion", target, aliases, kept if former is None else former, reason=reason, by=by)
        if decision is not None:
            event["decision"] = dict(decision)
        _carry_out(registry, event)
    replaced = f" in place of version {former}" if former else ""
    told = f"{name}/{target.number} is the champion{replaced}."
    return Move(name, target.number, event["previous_champion"][1], told)


def rollback(
    name: str, *, reason: str = "rolled back", by: str | None = None, registry: Registry | None = None
) -> Move:
    """Make ``previous_champion`` the champion again; the two swap places.

    Raises:
        UserError: there is no such model, or nothing to roll back to.
        AssayError: another machine moved the aliases at the same moment.
    """
    registry = registry or Registry()
    with registry.lock():
        repair(name, registry=registry)
        aliases = registry.aliases(name)
        former, previous = aliases.get(CHAMPION), aliases.get(PREVIOUS_CHAMPION)
        if previous is None:
            raise UserError(
                f"{name} has no previous champion to roll back to: promote a version with "
                f"`assay models promote {name} VERSION --reason ...`."
            )
        event = _intent("rollback", registry.resolve(name, previous), aliases, former, reason=reason, by=by)
        _carry_out(registry, event)
    told = f"version {former} is now the previous champion" if former else "there is no previous champion now"
    return Move(name, previous, former, f"{name}/{previous} is the champion again, and {told}.")


def repair(name: str, *, registry: Registry | None = None) -> list[str]:
    """Finish or undo what a killed process left, and say what else is not as the history has it.

    An interrupted move is finished. Where its target was deleted since, both aliases go back to where they
    were; where somebody moved ``champion`` elsewhere since, they stay. Every command calls this first.

    Returns:
        One sentence for each thing repaired or found; empty in the normal case.

    Raises:
        UserError: there is no such model.
    """
    registry = registry or Registry()
    reports = []
    if _unfinished(registry, name):
        with registry.lock():  # a move that is under way in another process ends first
            reports = [_mend(registry, event) for event in _unfinished(registry, name)]
    return reports + _drift(registry, name)


def history(name: str, *, registry: Registry | None = None) -> list[Event]:
    """Return every registration, gate decision, promotion, rollback and repair of a model, oldest first.

    The log of this machine and the events mirrored on the tracking server are merged by id; the log wins.

    Raises:
        UserError: there is no such model.
    """
    registry = registry or Registry()
    events: dict[str, Event] = {}
    for tags, version in registry.event_tags(name):
        for key, text in tags.items():
            if key.startswith(EVENT_TAG):
                event = json.loads(text)
                events[event["id"]] = {**event, "version": version or event["version"]}
    events |= {key: event for key, event in registry.log.events().items() if event.get("model") == name}
    return [events[key] for key in sorted(events)]


def promote_decided(name: str, version: int, *, decision: Path, metrics: Path) -> dict[str, float]:
    """Promote the version that a gate's ``decision.json`` passed: the task behind the component.

    Returns:
        The champion's version and, where there is one, the previous champion's.

    Raises:
        UserError: the decision is about another model or version, or is not to promote.
    """
    decided = json.loads(decision.read_text())
    if (decided["name"], decided["version"], decided["decision"]) != (name, version, "promote"):
        raise UserError(
            f"{decision} does not say to promote {name}/{version}: it says to {decided['decision']} "
            f"{decided['name']}/{decided['version']}; run the gate for that version first."
        )
    summary = {key: decided[key] for key in ("decision", "champion", "numbers")}
    moved = promote(name, version, reason=decided["reasons"][0], decision=summary)
    values = {"champion": float(moved.champion)}
    if moved.previous_champion is not None:
        values["previous_champion"] = float(moved.previous_champion)
    write_json(metrics, values)
    return values


def _intent(
    kind: str,
    target: Version,
    aliases: Mapping[str, int],
    previous: int | None,
    *,
    reason: str,
    by: str | None,
) -> Event:
    """Return the event that describes a move: each alias's version before and after."""
    return new_event(
        kind,
        target.name,
        target.number,
        actor=by or actor(),
        reason=reason.strip(),
        champion=[aliases.get(CHAMPION), target.number],
        previous_champion=[aliases.get(PREVIOUS_CHAMPION), previous],
    )


def _carry_out(registry: Registry, event: Event) -> None:
    """Write the intent, move the aliases, and write that it is done."""
    registry.log.append({**event, "step": "intent"})
    _finish(registry, event)


def _finish(registry: Registry, event: Event) -> None:
    """Move both aliases to where the event has them, verify, mirror, and write the done line.

    Every step can be repeated: an interrupted move is finished by calling this again.
    """
    name, champion, previous = event["model"], event["champion"][1], event["previous_champion"][1]
    _point(registry, name, PREVIOUS_CHAMPION, previous)
    _point(registry, name, CHAMPION, champion)
    aliases = registry.aliases(name)
    if (aliases.get(CHAMPION), aliases.get(PREVIOUS_CHAMPION)) != (champion, previous):
        registry.log.append({"id": event["id"], "step": "superseded"})
        raise AssayError(
            f"The aliases of {name} were moved by another machine at the same moment: look at "
            f"`assay models show {name}`, then repeat the command if it is still right."
        )
    _mirror(registry, {**event, "step": "done"})
    registry.log.append({"id": event["id"], "step": "done"})


def _point(registry: Registry, name: str, alias: str, version: int | None) -> None:
    if version is not None:
        registry.client.set_registered_model_alias(name, alias, str(version))
    elif alias in registry.aliases(name):
        registry.client.delete_registered_model_alias(name, alias)


def _mirror(registry: Registry, event: Event) -> None:
    """Keep an event as a tag of the registered model, for those who share the tracking server."""
    short = {**event, "reason": event["reason"][:_MIRRORED_REASON]}
    registry.client.set_registered_model_tag(event["model"], EVENT_TAG + event["id"], json.dumps(short))


def _unfinished(registry: Registry, name: str) -> list[Event]:
    events = registry.log.events().values()
    return [event for event in events if event.get("step") == "intent" and event["model"] == name]


def _mend(registry: Registry, event: Event) -> str:
    """Finish, undo or leave one interrupted move; return the sentence that says which."""
    name, (former, target) = event["model"], event["champion"]
    label = f"The interrupted {event['kind']} of {name}/{target}"
    existing = {version.number for version in registry.versions(name)}
    if target not in existing:
        for alias in (PREVIOUS_CHAMPION, CHAMPION):
            before = event[alias][0]
            _point(registry, name, alias, before if before in existing else None)
        registry.log.append({"id": event["id"], "step": "undone"})
        sentence = f"{label} was undone, because that version was deleted since."
    elif registry.aliases(name).get(CHAMPION) not in (former, target):
        registry.log.append({"id": event["id"], "step": "superseded"})
        sentence = f"{label} was left, because the champion was moved elsewhere since."
    else:
        _finish(registry, event)
        sentence = f"{label} was completed."
    told = new_event("repair", name, target, actor=actor(), reason=sentence, repaired=event["id"])
    _mirror(registry, told)
    registry.log.append(told)
    return sentence


def _drift(registry: Registry, name: str) -> list[str]:
    """Compare the champion with the last move of the history: MLflow keeps no record of its aliases."""
    moves = [e for e in history(name, registry=registry) if e.get("step") == "done"]
    recorded = moves[-1]["champion"][1] if moves else None
    actual = registry.champion(name)
    if recorded == actual or recorded is None:
        return []
    if actual is not None:
        return [f"The champion of {name} is version {actual}, moved outside Assay from version {recorded}."]
    gone = recorded not in {version.number for version in registry.versions(name)}
    how = f"version {recorded} was deleted" if gone else f"its alias was removed from version {recorded}"
    return [f"{name} has no champion, because {how} outside Assay: roll back, or promote another version."]
