"""Keeping secrets out of what is written down: task logs, and the progress lines taken from them."""

import configparser
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

_SECRET_NAME = re.compile(r"SECRET|PASSWORD|PASSWD|TOKEN|API_?KEY|ACCESS_KEY(?!_ID)|PRIVATE_KEY", re.IGNORECASE)
_NAMES_A_FILE = re.compile(r"_(FILE|PATH|DIR)$", re.IGNORECASE)
_SHORTEST = 6  # characters: a shorter value ("true", "none") would blot out ordinary words


class Redactor:
    """Replaces every secret of an environment in a text by ``***``.

    Secrets are the values of variables whose names say so (``SECRET``, ``PASSWORD``, ``TOKEN``, ``API_KEY``, ...),
    the passwords in addresses, and the secret keys in the file that ``AWS_SHARED_CREDENTIALS_FILE`` names. A
    component may print its whole environment, and an exception the address that it failed to reach.

    Args:
        environment: what the process that prints will see.

    Example:
        >>> redact = Redactor({"DB_PASSWORD": "hunter2", "STORE": "postgresql://me:open-sesame@db/runs"})
        >>> redact("cannot open postgresql://me:open-sesame@db/runs with hunter2")
        'cannot open postgresql://me:***@db/runs with ***'
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        found = {secret for secret in _secrets(environment) if len(secret) >= _SHORTEST}
        longest_first = sorted(found, key=lambda secret: (-len(secret), secret))  # one may be a part of another
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if found else None

    def __call__(self, text: str) -> str:
        """Return ``text`` without the secrets."""
        return self._pattern.sub("***", text) if self._pattern else text


def _secrets(environment: Mapping[str, str]) -> Iterator[str]:
    for name, value in environment.items():
        if _SECRET_NAME.search(name) and not _NAMES_A_FILE.search(name):
            yield value
            yield from value.splitlines()  # a log has lines, and a private key has many
        if "://" in value and (password := _password(value)):
            yield password
            yield unquote(password)
    yield from _secret_keys(environment.get("AWS_SHARED_CREDENTIALS_FILE", ""))


def _password(address: str) -> str | None:
    try:
        return urlsplit(address).password
    except ValueError:  # not an address after all
        return None


def _secret_keys(path: str) -> Iterator[str]:
    profiles = configparser.RawConfigParser()
    try:
        profiles.read([Path(path).expanduser()] if path else [], encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):
        return  # whoever needs the file will say what is wrong with it
    for section in profiles.sections():
        for option in ("aws_secret_access_key", "aws_session_token"):
            if value := profiles.get(section, option, fallback=""):
                yield value
