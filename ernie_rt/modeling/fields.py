"""Reading the fields of an untrusted config strictly: by kind and range, each refusal naming its field."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from ernie_rt.display import shown
from ernie_rt.errors import ConfigError


class Fields:
    """The fields of one config over their defaults; `aliases` maps other spellings to the names used here.

    Strict: true is no integer, "3" is no number, and nothing is converted but 3 to 3.0 and 3.0 to 3, which are one
    number in JSON.
    Every method that reads raises ConfigError.
    """

    def __init__(
        self,
        fields: Mapping[str, object],
        where: str,
        defaults: Mapping[str, object] | None = None,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        self.where = where
        self._values: dict[str, object] = {**(defaults or {}), **fields}
        self._spelt: dict[str, str] = {}
        for alias, name in (aliases or {}).items():
            given, other = fields.get(alias), fields.get(name)
            if given is not None:
                if other is not None and other != given:
                    raise self.refusal(alias, f"differs from {name}", shown(other), given)
                self._values[name] = given
                self._spelt[name] = alias

    def refusal(self, name: str, what: str, expected: str, found: object, hint: str | None = None) -> ConfigError:
        """The error for a field, under the name that the config gives it."""
        where = f"{self.where}: {self._spelt.get(name, name)}"
        return ConfigError(what, where=where, expected=expected, found=shown(found), hint=hint)

    def value(self, name: str) -> object:
        return self._values.get(name)

    def absent(self, name: str) -> bool:
        """Whether a field is not given, or null."""
        return self._values.get(name) is None

    def integer(self, name: str, low: int, high: int) -> int:
        return self._integer(name, self.value(name), low, high)

    def integers(self, name: str, low: int, high: int) -> tuple[int, ...]:
        """An integer, or a list of up to 64."""
        value = self.value(name)
        if not isinstance(value, list):
            return (self.integer(name, low, high),)
        if len(value) > 64:
            raise self.refusal(name, "impossible value", "at most 64 integers", value)
        return tuple(self._integer(name, entry, low, high) for entry in value)

    def one_of(self, name: str, low: int, high: int, choose: Callable[[tuple[int, ...]], int]) -> int:
        """An integer, or the one that `choose` takes from a list."""
        entries = self.integers(name, low, high)
        if not entries:
            raise self.refusal(name, "impossible value", f"an integer from {low} to {high}", [])
        return choose(entries)

    def pair(self, name: str, low: int, high: int) -> tuple[int, int]:
        """Two integers in a list, or one for both."""
        match self.integers(name, low, high):
            case (both,):
                return both, both
            case (first, second):
                return first, second
        raise self.refusal(name, "impossible value", "one integer or two", self.value(name))

    def section(self, name: str) -> Mapping[str, object]:
        """An object; an empty one where there is none."""
        value = {} if self.absent(name) else self.value(name)
        if isinstance(value, Mapping):
            return value
        raise self.refusal(name, "impossible value", "an object or null", value)

    def number(self, name: str, low: float, high: float) -> float:
        value = self.value(name)
        if (type(value) is float or type(value) is int) and low <= value <= high:
            return float(value)
        raise self.refusal(name, "impossible value", f"a number from {low:g} to {high:g}", value)

    def boolean(self, name: str) -> bool:
        value = self.value(name)
        if isinstance(value, bool):
            return value
        raise self.refusal(name, "impossible value", "true or false", value)

    def refuse_unless(self, neutral: Mapping[str, tuple[object, ...]]) -> None:
        """Refuse every field that is given with a value other than its neutral ones."""
        for name, values in neutral.items():
            found = self._values.get(name, values[0])
            if not is_one_of(found, values):
                expected = " or ".join("null" if v is None else str(v).lower() for v in values)
                hint = "The field changes what the model computes; choose a release of the model without it"
                raise self.refusal(name, "not supported", expected, found, hint)

    def _integer(self, name: str, value: object, low: int, high: int) -> int:
        if (type(value) is int or type(value) is float) and low <= value <= high and value == int(value):
            return int(value)
        raise self.refusal(name, "impossible value", f"an integer from {low} to {high}", value)


def is_one_of(found: object, values: Iterable[object]) -> bool:
    """Whether JSON holds `found` for one of some values: 1 and 1.0 are the same, 1 and true are not."""
    kinds = {int, float} if type(found) in (int, float) else {type(found)}
    return any(type(value) in kinds and found == value for value in values)
