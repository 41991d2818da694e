"""Secrets of connections: a configuration names them, the portal's environment has them.

The secret called `azure_client` is the value of PORTAL_SECRET_AZURE_CLIENT, or what stands in the file that
PORTAL_SECRET_AZURE_CLIENT_FILE names. The name is all that the database, a page or a log ever holds. Only variables with
this prefix can be named, so that nobody who may edit a connection reads another variable or file through it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

PREFIX = "PORTAL_SECRET_"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")


class SecretName(str):
    """The name of a secret, never the secret itself."""

    __slots__ = ()


class SecretMissingError(LookupError):
    """The environment has no such secret, or its file cannot be read."""

    def __init__(self, name: str, variable: str) -> None:
        super().__init__(
            f"The secret {name} is not there: set {variable}, or {variable}_FILE to the path of a file that holds it."
        )
        self.name = name


class Secret:
    """A secret on its way to where it is used. Printed or logged it shows nothing."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself; call this where it is handed over and nowhere before."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"


def is_secret_name(text: str) -> bool:
    """Whether this can be the name of a secret. A name that ends in _FILE would be read as the path of another."""
    return _NAME.fullmatch(text) is not None and not text.upper().endswith("_FILE")


def variable_of(name: str) -> str:
    """The environment variable that holds this secret."""
    return PREFIX + name.upper()


def read_secret(name: str, environment: Mapping[str, str] | None = None) -> Secret:
    """The secret of this name, without the line break at its end. Raises SecretMissingError."""
    variables = os.environ if environment is None else environment
    variable = variable_of(name)
    if is_secret_name(name):
        if value := variables.get(variable, ""):
            return Secret(value)
        if path := variables.get(f"{variable}_FILE", ""):
            try:
                value = Path(path).read_text().rstrip("\r\n")
            except (OSError, ValueError):
                value = ""
            if value:
                return Secret(value)
    raise SecretMissingError(name, variable)
