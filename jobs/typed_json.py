"""JSON that anybody may have edited: parsed within bounds, and checked against a type.

A type is a TypedDict, list[T], dict[str, T], a union, Literal, Any, str, int, float, bool or None.
`Annotated` narrows one by `Range` or `Text`. Numbers are finite, whole numbers have 64 bits.
"""

from __future__ import annotations

import functools
import json
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NotRequired, Union

from jobs.errors import BadDataError

REMEDY = "it was edited or damaged, run its job again with --force"
BITS = 64
# Characters of a value in a message.
LONGEST_SHOWN = 60
# A lone half of a surrogate pair, which JSON may escape, is no character of UTF-8.
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

# Stands for a field that is absent.
MISSING = object()

Check = Callable[[Any, str], None]


@dataclass(frozen=True)
class Range:
    """The bounds of a number, both within."""

    low: float
    high: float = math.inf

    def __str__(self) -> str:
        return f"from {self.low:g}" + ("" if self.high == math.inf else f" to {self.high:g}")


@dataclass(frozen=True)
class Text:
    """The pattern of a text, whole; `words` say it to people."""

    pattern: str
    words: str


Fraction = Annotated[float, Range(0, 1)]
Count = Annotated[int, Range(0)]
Name = Annotated[str, Text(r"[^/\x00-\x1f\x7f]{1,1024}(?<!^\.)(?<!^\.\.)", "a name without /")]
Key = Annotated[
    str,
    Text(r"(?!/)(?!(.*/)?\.\.?(/|$))[^\x00-\x1f\x7f]{1,1024}", "a key below its manifest's folder"),
]
Sha256 = Annotated[str, Text(r"[0-9a-f]{64}", "64 hex digits")]
Uri = Annotated[str, Text(r"s3://[^/\x00-\x1f]+/[^\x00-\x1f]+", "s3://BUCKET/KEY")]


class _WrongError(Exception):
    """A value that is not of its type: (field, value, what the type accepts)."""


def parse(data: bytes, name: str, remedy: str = REMEDY) -> Any:
    """The value of UTF-8 JSON, with or without a byte order mark.

    Raises BadDataError, naming `name`, for other bytes, for NaN, infinity and numbers too large,
    and for values nested too deeply.
    """
    try:
        text = data.decode("utf-8-sig")
        value = json.loads(text, parse_constant=_finite, parse_float=_finite, parse_int=_whole)
        if SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise BadDataError(f"{name} does not hold JSON (nested too deeply): {remedy}") from None
    except ValueError as error:
        raise BadDataError(f"{name} does not hold JSON ({error}): {remedy}") from error
    return value


def check(value: Any, form: Any, name: str, *, remedy: str = REMEDY, closed: bool = True) -> Any:
    """`value`, which is of the type `form`.

    Raises BadDataError, naming `name` and the field, where it is not, and where a TypedDict has
    unknown fields, unless it is not `closed`.
    """
    try:
        _check_of(form, closed)(value, "")
    except _WrongError as wrong:
        field, found, accepted = wrong.args
        where = f"{name}: {field.lstrip('.')}" if field else name
        is_not = "missing" if found is MISSING else f"{_shown(found)}, not {accepted}"
        raise BadDataError(f"{where} is {is_not}: {remedy}") from None
    return value


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"the number {text[:LONGEST_SHOWN]} is not finite")
    return number


def _whole(text: str) -> int:
    if len(text) > BITS // 3 or (number := int(text)).bit_length() >= BITS:
        raise ValueError(f"the number {text[:LONGEST_SHOWN]} has more than {BITS} bits")
    return number


def _shown(value: Any) -> str:
    text = json.dumps(value, default=lambda other: f"a {type(other).__name__}")
    return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "…"


@functools.lru_cache(maxsize=256)
def _check_of(form: Any, closed: bool) -> Check:
    """The function that raises _WrongError for a value, at a field, that is not of `form`."""
    origin, arguments = typing.get_origin(form), typing.get_args(form)
    if form is Any:
        return lambda value, field: None
    if typing.is_typeddict(form):
        return _record(form, closed)
    if origin is Annotated:
        return _narrowed(_check_of(arguments[0], closed), arguments[1])
    if origin is Literal:
        accepted = " or ".join(json.dumps(choice) for choice in arguments)
        kinds = {(type(choice), choice) for choice in arguments}
        return _where(lambda value: _pair(value) in kinds, accepted)
    if origin in (Union, types.UnionType):
        return _union([_check_of(argument, closed) for argument in arguments])
    if origin is list:
        return _list(_check_of(arguments[0], closed))
    if origin is dict:
        return _map(_check_of(arguments[1], closed))
    kind, accepted = KINDS[form]
    return _where(lambda value: type(value) in kind, accepted)


KINDS: dict[Any, tuple[tuple[type, ...], str]] = {
    str: ((str,), "a text"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    bool: ((bool,), "true or false"),
    None: ((type(None),), "null"),
    type(None): ((type(None),), "null"),
}


def _pair(value: Any) -> tuple[type, Any]:
    return type(value), value if isinstance(value, str | int | float | None) else None


def _where(is_one: Callable[[Any], bool], accepted: str) -> Check:
    def check_value(value: Any, field: str) -> None:
        if not is_one(value):
            raise _WrongError(field, value, accepted)

    return check_value


def _narrowed(check_kind: Check, bound: Range | Text) -> Check:
    if isinstance(bound, Text):
        matches = re.compile(bound.pattern).fullmatch
        check_bound = _where(lambda value: matches(value) is not None, bound.words)
    else:
        low, high = bound.low, bound.high
        # NaN, which a checkpoint may hold, is within no bounds.
        check_bound = _where(lambda value: low <= value <= high, f"a number {bound}")

    def check_both(value: Any, field: str) -> None:
        check_kind(value, field)
        check_bound(value, field)

    return check_both


def _union(checks: list[Check]) -> Check:
    def check_any(value: Any, field: str) -> None:
        wrongs = []
        for check_one in checks:
            try:
                return check_one(value, field)
            except _WrongError as wrong:
                wrongs.append(wrong)
        # The fault furthest inside is of the type that was meant.
        deepest = max(wrongs, key=lambda wrong: len(wrong.args[0]))
        if len(deepest.args[0]) > len(field):
            raise deepest
        raise _WrongError(field, value, " or ".join(wrong.args[2] for wrong in wrongs))

    return check_any


def _list(check_item: Check) -> Check:
    def check_list(value: Any, field: str) -> None:
        if type(value) is not list:
            raise _WrongError(field, value, "a list")
        for number, item in enumerate(value):
            check_item(item, f"{field}[{number}]")

    return check_list


def _map(check_item: Check) -> Check:
    def check_map(value: Any, field: str) -> None:
        if not isinstance(value, dict):
            raise _WrongError(field, value, "an object")
        for key, item in value.items():
            check_item(item, f"{field}.{key}")

    return check_map


def _record(form: Any, closed: bool) -> Check:
    hints: Mapping[str, Any] = typing.get_type_hints(form, include_extras=True)
    optional = {name for name, hint in hints.items() if typing.get_origin(hint) is NotRequired}
    checks = {
        name: _check_of(typing.get_args(hint)[0] if name in optional else hint, closed)
        for name, hint in hints.items()
    }
    required = [name for name in hints if name not in optional]

    def check_record(value: Any, field: str) -> None:
        if not isinstance(value, dict):
            raise _WrongError(field, value, f"an object with {', '.join(required) or 'fields'}")
        for name in required:
            if name not in value:
                raise _WrongError(f"{field}.{name}", MISSING, "")
        for name, item in value.items():
            if check_field := checks.get(name):
                check_field(item, f"{field}.{name}")
            elif closed:
                raise _WrongError(f"{field}.{name}", item, "a field of this version")

    return check_record


class Fields(dict[str, Any]):
    """The fields of an object; one that is missing raises BadDataError, naming the file.

    Args:
        name: of the object in its file, such as counts. uri: of the file.
    """

    def __init__(self, fields: Mapping[str, Any], name: str, uri: str) -> None:
        super().__init__(fields)
        self._name, self._uri = name, uri

    def __missing__(self, key: str) -> Any:
        raise BadDataError(f"{self._uri}: {self._name}.{key} is missing: {REMEDY}")
