"""What is wrong with the rules, told to the people who wrote them: file, line, key, and what would be right."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mautic_sync.domain.grammar import Path, nearest, path_text, suggestion_for_key, with_a_point
from mautic_sync.errors import ConfigError
from mautic_sync.yaml_text import Document, read_yaml


@dataclass(frozen=True, slots=True)
class FileProblem:
    """One thing to correct: where it stands, and a sentence that says what is wrong and what would be right."""

    file: str
    line: int
    key: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}{f', {self.key}' if self.key else ''}: {self.text}"


class MappingsError(ConfigError):
    """The rules cannot be used as they are written; `problems` lists everything to correct."""

    def __init__(self, problems: Iterable[FileProblem]) -> None:
        self.problems = tuple(problems)
        count = "one problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__("\n".join([f"The mappings have {count}:", *(f"  {problem}" for problem in self.problems)]))


@dataclass(frozen=True)
class SourceFile:
    """One file as it was read: where it came from and the line of each of its keys."""

    name: str
    document: Document
    packaged: bool = False
    text: str = ""
    """The file itself, for a copy that can be read again."""

    def problem(self, path: Path, text: str) -> FileProblem:
        return FileProblem(self.name, self.document.line(path), path_text(path), text)

    def problems_of_text(self) -> list[FileProblem]:
        """What is wrong with the text itself, each in the line where it stands and not in that of its path."""
        return [FileProblem(self.name, one.line, path_text(one.path), one.text) for one in self.document.problems]


# --- What pydantic found, in words ------------------------------------------------------------------------------


def existing_path(location: tuple[str | int, ...], value: Any) -> Path:
    """Pydantic's location without the names of types it tried, down to one key that need not be there."""
    path: list[str | int] = []
    for part in location:
        if isinstance(value, dict):
            if isinstance(part, int) and part not in value:
                continue  # one map stands where a list of them may
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            break
        path.append(part)
    return tuple(path)


def _keys_at(path: Path, schema: dict[str, Any]) -> list[str]:
    """The keys that the schema allows beside the last of a path."""
    part: Any = schema

    def resolved(one: Any, step: str | int) -> Any:
        while isinstance(one, dict) and "$ref" in one:
            one = schema["$defs"][one["$ref"].removeprefix("#/$defs/")]
        if isinstance(one, dict) and "anyOf" in one:
            lists = isinstance(step, int)
            fitting = (each for each in one["anyOf"] if each.get("type") != "null" and ("items" in each) is lists)
            return resolved(next(fitting, {}), step)
        return one

    for step in path[:-1]:
        part = resolved(part, step)
        if isinstance(step, int):
            part = part.get("items", {})
        else:
            named = part.get("properties", {}).get(step) or part.get("additionalProperties")
            part = named or next(iter(part.get("patternProperties", {}).values()), {})
    found = resolved(part, path[-1])
    return list(found.get("properties", {})) if isinstance(found, dict) else []


CALLED = {"within": "per"}
"""What people call keys that is more like another one."""
_TAKES = {
    "bool_type": "true or false",
    "string_type": "text; put it in quotes if it looks like something else",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "list_type": "a list, like [a, b]",
    "dict_type": "a map of keys",
    "model_type": "a map of keys",
    "model_attributes_type": "a map of keys",
    "finite_number": "a finite number",
}


def sentence(error: dict[str, Any], path: Path, schema: dict[str, Any]) -> str:
    kind, given, context = error["type"], error.get("input"), error.get("ctx", {})
    key = path[-1] if path else ""
    told = f"`{key}`" if isinstance(key, str) else f"an entry of `{_list_at(path)}`"
    if kind == "extra_forbidden":
        keys = _keys_at(path, schema)
        called = {word: meant for word, meant in CALLED.items() if meant in keys}
        return f"there is no key `{key}` here{suggestion_for_key(key, given, keys, called)}"
    if kind == "missing":
        return f"`{key}` is missing" + ("; begin the file with `version: 1`" if key == "version" else "; add it")
    if kind == "literal_error":
        wanted = str(context.get("expected", "")).replace("'", "")
        words = re.split(r", | or ", wanted)
        if given in words:  # a number is wanted, and this is text that looks like it
            return _in_quotes(given)
        return f"{shape(given)} is not one of: {', '.join(words)}{_meant(given, words)}"
    if kind == "value_error":
        return str(context.get("error", error["msg"]))
    if kind in {"bool_type", "int_type", "float_type"} and _looks_otherwise(given):
        return _in_quotes(given)
    if kind in _TAKES:
        return f"{told} takes {_TAKES[kind]}, not {shape(given)}" + (
            with_a_point(given) if kind == "float_type" else ""
        )
    if kind in {"greater_than_equal", "greater_than"}:
        return f"{shape(given)} is too small; write {context.get('ge', context.get('gt'))} or more"
    if kind in {"less_than_equal", "less_than"}:
        below = f"less than {context['lt']}" if kind == "less_than" else f"{context['le']} or less"
        return f"{shape(given)} is too large; write {below}"
    if kind in {"too_short", "string_too_short"}:
        return f"{told} is empty" + ("; give it at least one entry" if kind == "too_short" else "")
    if kind == "string_too_long":
        return f"this is longer than {context.get('max_length')} characters"
    if kind == "string_pattern_mismatch":
        if "a-z" in str(context.get("pattern")):
            return f"{shape(given)} is no alias of a field; aliases are lower case letters, digits and _, and begin with a letter"
        return f"{shape(given)} begins or ends with a blank, or has several lines"
    return f"{shape(given)} does not fit: {error['msg']}"


def _list_at(path: Path) -> str:
    """The key of the list in which a path ends."""
    return next((part for part in reversed(path) if isinstance(part, str)), "")


def _looks_otherwise(given: object) -> bool:
    """Whether this is text that would be a number, or true or false, without its quotes."""
    return isinstance(given, str) and isinstance(read_yaml(given.encode()).value, (bool, int, float))


def _in_quotes(given: object) -> str:
    return f'`"{given}"` is text because of its quotes; remove them'


def _meant(given: object, words: list[str]) -> str:
    near = nearest(given, words)
    return f"; did you mean `{near}`?" if near else ""


def shape(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, (dict, list)):
        return "a map" if isinstance(value, dict) else "a list"
    text = str(value)
    return f"`{text[:60]}{'…' if len(text) > 60 else ''}`" if text else "an empty text"
