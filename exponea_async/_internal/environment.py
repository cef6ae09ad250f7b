"""
Settings from environment variables: which there are, and what they say. Knows attrs classes, not what they are for.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import attrs
from attrs import Attribute

from exponea_async._internal import validation as checks
from exponea_async.errors import ConfigurationError

PREFIX = "EXPONEA_"


class Environment:
    """
    The variables of a class of settings: ``EXPONEA_<FIELD>``, and ``EXPONEA_<SECTION>_<FIELD>`` for nested classes.

    Args:
        kind: The class.
        sections: Nested classes, by the name that stands before their fields'.
    """

    def __init__(self, kind: type, sections: Mapping[str, type]) -> None:
        self._sections = {"": kind, **sections}
        self._code = frozenset(each.name for each in attrs.fields(kind) if "Callable" in str(each.type))
        self._known: dict[str, tuple[str, Attribute[Any]]] = {
            _variable(f"{section}.{each.name}"): (section, each)
            for section, owner in self._sections.items()
            for each in attrs.fields(owner)
            if each.init and each.name not in self._code and each.name not in self._sections
        }

    def refuse_unknown(self, variables: Iterable[str]) -> None:
        """
        Look for variables that nobody would read.

        Raises:
            ConfigurationError: There is one.
        """
        for name in variables:
            if name.startswith(PREFIX) and name not in self._known:
                hint = checks.nearest(name, self._known, "Remove it.", prefix=PREFIX)
                if name.removeprefix(PREFIX).lower() in self._code:
                    hint = "Code can't come from the environment; pass it to from_env() as an argument."
                raise ConfigurationError(name, "there is no such variable", hint)

    def read(
        self, variables: Mapping[str, str], overrides: Mapping[str, Any], standing_for: Mapping[str, str]
    ) -> dict[str, dict[str, Any]]:
        """
        Read what is set, by section and field.

        Args:
            variables: The variables; an empty one counts as not set.
            overrides: Fields that are given otherwise; their variables are not read.
            standing_for: Sections that are another way to say a field of the class.

        Raises:
            ConfigurationError: A text can't be read.
        """
        given: dict[str, dict[str, Any]] = {section: {} for section in self._sections}
        for name, (section, each) in self._known.items():
            field = standing_for.get(section, section) or each.name
            if variables.get(name) and field not in overrides:
                given[section][each.name] = checks.read(name, each.type, variables[name])
        return given

    def as_written(self, field: str, overrides: Mapping[str, Any]) -> str:
        """Tell a field's variable, with what follows the field's own name; an override keeps its name."""
        name = field.partition("[")[0]
        if name.partition(".")[0] in overrides or _variable(name) not in self._known:
            return field
        return _variable(name) + field.removeprefix(name)


def _variable(field: str) -> str:
    return PREFIX + field.lstrip(".").replace(".", "_").upper()
