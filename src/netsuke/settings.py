"""Options from what people write: `a=1,b=2` on a command line, tables in a TOML file; checked, and typed."""

from __future__ import annotations

import difflib
import types
from collections.abc import Collection, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from netsuke.errors import OptionError

T = TypeVar("T")

NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def pairs(text: str, what: str) -> dict[str, str]:
    """`a=1,b=2` as a dict."""
    found = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not equals or not value:
            raise OptionError(f"{what} are written name=value,name=value; got {part!r}")
        if key.strip() in found:
            raise OptionError(f"{key.strip()} stands twice among the {what}")
        found[key.strip()] = value.strip()
    return found


def value(text: str) -> Any:
    """A whole number, a number, true or false, or the text itself."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def unknown(name: str, known: Collection[str], what: str, path: str = "") -> str:
    """`no option 'ammount'; did you mean 'amount'?`, or the list of all where none is near; `path` precedes each."""
    near = difflib.get_close_matches(name, known, 1)
    rest = f"did you mean {path + near[0]!r}?" if near else f"there are {', '.join(known)}"
    return f"no {what} {path + name!r}; {rest}"


def filled(start: T, table: Mapping[str, Any], shared: Mapping[str, Any] | None = None, path: str = "") -> T:
    """A copy of the frozen dataclass `start` with what the table says.

    A field that is a dataclass itself takes a table, or the text that its `parse` takes. `shared` goes to every
    field of its name, at any depth, of which the table says nothing. Raises OptionError, with the key, for one
    that is not there (naming the nearest), a value of another type, and whatever the dataclass refuses.
    """
    hints = get_type_hints(type(start))
    known = [f.name for f in fields(start)]  # type: ignore[arg-type]
    chosen: dict[str, Any] = {}
    for key in table:
        if key not in known:
            raise OptionError(unknown(str(key), known, "option", path))
    for name in known:
        given, there = table.get(name), getattr(start, name)
        if is_dataclass(there) and not isinstance(there, type) and not isinstance(given, str):
            inner = {} if given is None else given
            if not isinstance(inner, Mapping):
                raise OptionError(f"{path}{name} must be a table; got {given!r}")
            chosen[name] = filled(there, inner, shared, f"{path}{name}.")
        elif name in table:
            chosen[name] = _typed(hints[name], given, path + name)
        elif shared and name in shared:
            chosen[name] = shared[name]
    try:
        return replace(start, **chosen)  # type: ignore[type-var]
    except OptionError as error:
        raise OptionError(f"{path.rstrip('.')}: {error}" if path else str(error)) from None


def _typed(kind: Any, given: Any, where: str) -> Any:
    """The value as the field's type has it; TOML knows lists, but no tuples."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        choices = [k for k in inner if k is not type(None)]
        for choice in choices:
            try:
                return _typed(choice, given, where)
            except OptionError:
                if choice is choices[-1]:
                    raise
    if origin is Literal:
        if given in inner:
            return given
        raise OptionError(f"{where} must be one of {', '.join(map(str, inner))}; got {given!r}")
    if origin is tuple and isinstance(given, list | tuple):
        kinds = inner[:1] * len(given) if inner[-1] is Ellipsis else inner
        if len(kinds) == len(given):
            return tuple(_typed(k, g, where) for k, g in zip(kinds, given, strict=True))
        raise OptionError(f"{where} takes {len(kinds)} values; got {given!r}")
    if origin in (dict, Mapping) and isinstance(given, Mapping):
        return {key: _typed(inner[1], g, f"{where}.{key}") for key, g in given.items()}
    if isinstance(given, str) and hasattr(kind, "parse"):
        return kind.parse(given)
    if type(given) is kind or (kind is float and type(given) is int):
        return float(given) if kind is float else given
    wanted = {tuple: "a list", dict: "a table", Mapping: "a table"}.get(origin or kind) or NAMES.get(
        kind, getattr(kind, "__name__", kind)
    )
    raise OptionError(f"{where} must be {wanted}; got {given!r}")
