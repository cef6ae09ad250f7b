"""
Environment variables of a settings class. Knows attrs classes, but not what their fields mean.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import attrs
from attrs import Attribute

from exponea_async._internal import validation as checks
from exponea_async._internal.secrets import Secret, to_secret
from exponea_async.errors import ConfigurationError

PREFIX = "EXPONEA_"
#: The name of a field, such as "storage", and with that of its section, such as "upload.gzip".
_NAME = r"\w+"
_NAME_IN_SECTION = r"\w+\.\w+"


class Environment:
    """
    The variables of a class: ``EXPONEA_<FIELD>``, and ``EXPONEA_<SECTION>_<FIELD>`` for nested classes.

    Args:
        kind: The class.
        sections: The nested classes by the names of their sections.
    """

    def __init__(self, kind: type, sections: Mapping[str, type]) -> None:
        self._sections = {"": kind, **sections}
        fields = [(section, each) for section, owner in self._sections.items() for each in attrs.fields(owner)]
        self._objects = frozenset(_variable(f"{section}.{each.name}") for section, each in fields if _is_object(each))
        self._variables: dict[str, tuple[str, Attribute[Any]]] = {
            _variable(f"{section}.{each.name}"): (section, each)
            for section, each in fields
            if each.init and not _is_object(each) and each.name not in self._sections
        }

    def select(self, variables: Mapping[str, str]) -> dict[str, Secret]:
        """Return the variables with our prefix. Their values are masked: they are keys, or have keys in them."""
        return {name: Secret(variables[name]) for name in variables if name.startswith(PREFIX)}

    def check_names(self, variables: Iterable[str]) -> None:
        """
        Check that all variables, which have our prefix, are known.

        Raises:
            ConfigurationError: One of them is not.
        """
        for name in variables:
            if name not in self._variables:
                hint = checks.suggest(name, self._variables, "Remove it.", prefix=PREFIX)
                if name in self._objects:
                    hint = "Pass the object itself as an argument of from_env()."
                raise ConfigurationError(name, "is not a known variable", hint)

    def read(
        self, variables: Mapping[str, Secret], overrides: Mapping[str, Any], replaces: Mapping[str, str]
    ) -> dict[str, dict[str, Any]]:
        """
        Return the values of the variables that are set, by section and field.

        Args:
            variables: The variables. An empty one counts as not set.
            overrides: Fields whose values are given otherwise; their variables are not read.
            replaces: By section, the field of the class whose value the section as a whole is.

        Raises:
            ConfigurationError: A value can't be parsed.
        """
        found: dict[str, dict[str, Any]] = {section: {} for section in self._sections}
        for name, (section, each) in self._variables.items():
            field = replaces.get(section, section) or each.name
            if variables.get(name) and field not in overrides:
                # No variable holds a key in plain text.
                found[section][each.name] = _read(name, each, variables[name])
        return found

    def variable_of(self, field: str, overrides: Mapping[str, Any]) -> str:
        """
        Return the variable of a field for an error, with what follows the name of the field, such as an index.

        A field whose value was given otherwise keeps its name.
        """
        section = re.match(_NAME, field)
        if section is None or section[0] in overrides:
            return field
        names = [field[: each.end()] for each in (re.match(_NAME_IN_SECTION, field), section) if each]
        known = next((name for name in names if _variable(name) in self._variables), None)
        return field if known is None else _variable(known) + field.removeprefix(known)


def _read(name: str, field: "Attribute[Any]", value: Secret) -> Any:
    parsed = checks.parse_variable(name, field.type, value)
    # A repr of its own leaves a secret out.
    return parsed if field.repr is True else to_secret(parsed)


def _is_object(field: "Attribute[Any]") -> bool:
    """Return whether the values of a field can't be written as text: functions and TLS settings."""
    return any(each in str(field.type) for each in ("Callable", "SSLContext"))


def _variable(field: str) -> str:
    return PREFIX + field.lstrip(".").replace(".", "_").upper()
