"""The documents tell the truth: every command, option, make target and path they name exists."""

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands(document: Path) -> list[list[str]]:
    """Words of every line of an indented or fenced block that starts with ``assay`` or ``make``."""
    lines = re.findall(r"^(?:    )?\$? ?((?:assay|make) .*)$", document.read_text(), re.MULTILINE)
    return [shlex.split(line.split(" #")[0].split(" && ")[0]) for line in lines]


CASES = [
    pytest.param(words, id=f"{document.name}: {' '.join(words)}")
    for document in DOCUMENTS
    for words in commands(document)
]


@pytest.mark.parametrize("words", [case for case in CASES if case.values[0][0] == "assay"])
def test_a_documented_command_exists_with_its_options(words: list[str]) -> None:
    from typer.main import get_command

    from assay.cli import app

    command, rest = get_command(app), words[1:]
    while hasattr(command, "commands") and rest:
        assert rest[0] in command.commands, f"assay has no command {rest[0]!r}"
        command, rest = command.commands[rest[0]], rest[1:]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for word in rest:
        if word.startswith("--"):
            assert word.split("=")[0] in known | {"--help"}, f"{' '.join(words)}: no option {word}"


@pytest.mark.parametrize("words", [case for case in CASES if case.values[0][0] == "make"])
def test_a_documented_make_target_exists(words: list[str]) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert words[1] in targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_every_link_and_picture_of_a_document_exists(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text())
    missing = [link for link in links if not (document.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_every_path_in_code_quotes_exists(document: Path) -> None:
    paths = re.findall(r"`((?:src|components|pipelines|infra|tests|docs|benchmarks)/[\w./-]*)`", document.read_text())
    missing = [path for path in paths if not (ROOT / path).exists()]
    assert not missing
