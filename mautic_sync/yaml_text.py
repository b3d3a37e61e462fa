"""YAML as people mean it: only `true` and `false` are booleans, dates stay text, a key stands once, and every value
remembers its line.

This is the core schema of YAML 1.2 without its rarer spellings of numbers: `NO`, `on`, `yes` and `2026-11-12` are
text, and so is `010`, which is a postcode and not the number eight.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

MOST_NODES = 50_000  # values in one file, aliases counted as often as they are used
DEEPEST = 50  # levels of nesting

Path = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # PyYAML's own name and shape


for _tag, _pattern, _first in (
    ("bool", r"^(?:true|false)$", "tf"),
    ("null", r"^(?:null|~|)$", ["n", "~", ""]),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789"),
    (
        "float",
        r"^[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$",
        "-+0123456789.",
    ),
    ("merge", r"^(?:<<)$", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


@dataclass(frozen=True)
class YamlProblem:
    """What is wrong with the text itself, and where."""

    line: int
    path: Path
    text: str


@dataclass
class Document:
    """The values of a text, the line of each (1 is the first), and what was wrong."""

    value: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[YamlProblem] = field(default_factory=list)

    def line(self, path: Path) -> int:
        """The line of a key or item, or of the nearest thing around it that exists."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def read_yaml(raw: bytes) -> Document:
    """Read one file. Never raises: what is wrong is in `problems`."""
    document = Document()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        document.problems.append(YamlProblem(line, (), "this is not UTF-8 text; save the file as UTF-8"))
        return document
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if error.problem == _NO_COLON:  # noticed in the next line
            mark = error.context_mark
        advice = _advice(error, text.splitlines())
        what = "; ".join(part for part in (error.context, error.problem) if part)
        told = f"this is not YAML: {what}" if advice is None else f"{advice} (YAML: {error.problem})"
        document.problems.append(YamlProblem(mark.line + 1 if mark else 1, (), told))
        return document
    except yaml.YAMLError as error:
        document.problems.append(YamlProblem(1, (), f"this is not YAML: {str(error).splitlines()[0]}"))
        return document
    except RecursionError:
        document.problems.append(YamlProblem(1, (), f"this nests deeper than {DEEPEST} levels"))
        return document
    if node is not None:
        document.value = _Reader(document).read(node, ())
    return document


_NO_COLON = "could not find expected ':'"
_NO_BREAK_SPACE = "a no-break space stands here, which is no space to YAML; type the spaces of this line anew"
_INDENTED = "this line is indented otherwise than its neighbours; give keys of one map, and items of one list, the same indentation"
_QUOTE = "put the value in quotes"


def _advice(error: yaml.MarkedYAMLError, lines: list[str]) -> str | None:
    """What to do about the mistakes that people make most; None where it is another."""
    problem, context = error.problem or "", error.context or ""
    mark = (error.context_mark if problem == _NO_COLON else error.problem_mark) or error.context_mark
    if mark is None:
        return None
    line = lines[mark.line] if mark.line < len(lines) else ""
    before, rest = line[: mark.column], line[mark.column :]
    if "character '\\t'" in problem:
        return "use spaces, not tabs, to indent"
    if "\xa0" in line:
        return _NO_BREAK_SPACE
    if context in {"while scanning an alias", "while scanning an anchor"} and error.context_mark is not None:
        rest = line[error.context_mark.column :]
        return f"what begins with `{rest[:1]}` is put in quotes: {_quoted(rest)}"
    if "undefined alias" in problem or "cannot start any token" in problem:
        return f"what begins with `{rest[:1]}` is put in quotes: {_quoted(rest)}"
    if problem == "mapping values are not allowed here":
        return f"{_QUOTE}: it contains a colon" if ":" in before else _INDENTED
    if problem == _NO_COLON and line.lstrip().startswith("{"):
        return "begin this line with `- `, if it is an item of the list above it"
    if problem == _NO_COLON:
        return "this line lacks `: ` between its key and its value"
    if problem.startswith("expected ','") and error.context_mark is not None:
        if error.context_mark.line != mark.line:
            return f"what is opened in line {error.context_mark.line + 1} is not closed, or lacks a comma"
        return f"a comma is missing, or the value contains a colon: {_QUOTE}"
    if "<block end>" in problem and before.strip() and rest[:1] in {"}", "]"}:
        return f"a `{rest[:1]}` too many stands here, or its opening one is missing"
    if "<block end>" in problem:
        return _INDENTED if not before.strip() else f"something follows the end of the value: {_QUOTE} as a whole"
    if "unknown escape character" in problem:
        sign = problem.partition("'")[2].rstrip("'")
        return f"in double quotes YAML reads `\\{sign}` itself; use single quotes, or write `\\\\{sign}`"
    if context == "while scanning a quoted scalar" and error.context_mark is not None:
        return f"the quotes that begin in line {error.context_mark.line + 1} do not end"
    return None


def _quoted(rest: str) -> str:
    """The value that a line goes on with, in quotes."""
    value = re.split(r"[,}\]]|\s+#|\s*$", rest, maxsplit=1)[0]
    return f'"{value}"'


class _TooMuchError(Exception):
    """The file says more than anybody means."""


class _Reader:
    def __init__(self, document: Document) -> None:
        self.document = document
        self.nodes = 0

    def read(self, node: yaml.Node, path: Path) -> Any:
        self.document.lines[()] = node.start_mark.line + 1
        try:
            return self.value(node, path, ())
        except _TooMuchError as error:
            self.problem(node, path, str(error))
            return None

    def problem(self, node: yaml.Node, path: Path, text: str) -> None:
        self.document.problems.append(YamlProblem(node.start_mark.line + 1, path, text))

    def value(self, node: yaml.Node, path: Path, above: tuple[int, ...]) -> Any:
        self.nodes += 1
        if self.nodes > MOST_NODES:
            raise _TooMuchError(f"this holds more than {MOST_NODES} values, aliases counted as often as they are used")
        if id(node) in above:
            raise _TooMuchError("an alias stands inside the thing that it repeats")
        if len(above) > DEEPEST:
            raise _TooMuchError(f"this nests deeper than {DEEPEST} levels")
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, path)
        if isinstance(node, yaml.SequenceNode):
            items = []
            for index, item in enumerate(node.value):
                here = (*path, index)
                self.document.lines[here] = item.start_mark.line + 1
                items.append(self.value(item, here, (*above, id(node))))
            return items
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path, (*above, id(node)))
        raise AssertionError(f"PyYAML has no such node: {node!r}")

    def mapping(self, node: yaml.MappingNode, path: Path, above: tuple[int, ...]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                for source in self.merged(value_node, path, above):
                    merged = source | merged
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self.problem(key_node, path, "a key is a word, not a list or a map")
                continue
            key = key_node.value
            here = (*path, key)
            if key.startswith("\xa0") or ":\xa0" in key:
                self.problem(key_node, path, _NO_BREAK_SPACE)
                continue
            if key in found:
                first = self.document.lines[here]
                self.problem(key_node, here, f"`{key}` stands twice here, first in line {first}; remove one of them")
                continue
            self.document.lines[here] = key_node.start_mark.line + 1
            found[key] = self.value(value_node, here, above)
        return merged | found

    def merged(self, node: yaml.Node, path: Path, above: tuple[int, ...]) -> list[dict[str, Any]]:
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        sources = [self.value(one, path, above) for one in nodes]
        if all(isinstance(source, dict) for source in sources):
            return sources
        self.problem(node, (*path, "<<"), "`<<` takes an alias of a map")
        return []

    def scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        text: str = node.value
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        try:
            if kind in {"str", "merge"}:
                return text
            if kind == "bool":
                return {"true": True, "false": False}[text]
            if kind == "null":
                return None
            if kind == "int" and len(text) <= 20:
                return int(text)
            if kind in {"int", "float"}:
                return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        except (ValueError, KeyError):
            self.problem(node, path, f"`{text}` is not what its tag `!!{kind}` says")
            return None
        self.problem(node, path, f"tags like `{node.tag}` mean nothing here; remove it")
        return None
