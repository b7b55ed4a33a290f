"""A form made from a JSON Schema and a document, and the document read back from what a browser sends.

A field is named by its place, `terms.0.tiers.1.rate`. Each list has one empty item more, which counts once something is
written in it, and each item a box that takes it out. A constant is no field; which variant an item is, is its `kind`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

REMOVED, NEW, NAME = "removed", "new", "called"
Schema = dict[str, Any]


@dataclass
class Node:
    """A field, or a group of them. `kind`: group, list, map, text, number, check, choice or lines."""

    kind: str
    name: str
    label: str
    help: str = ""
    value: Any = None
    required: bool = False
    schema: Schema = field(default_factory=dict)
    choices: list[str] = field(default_factory=list)
    inner: list["Node"] = field(default_factory=list)
    spare: bool = False
    variant: str = ""


class Forms:
    """Forms of one schema."""

    def __init__(self, schema: Schema, left_out: frozenset[str] = frozenset()) -> None:
        """`left_out`: fields of the document itself that are nobody's to write."""
        self._schema, self._definitions, self._left_out = schema, schema.get("$defs", {}), left_out

    def nodes(self, document: Mapping[str, Any]) -> list[Node]:
        return self._group(self._schema, "", document, self._left_out)

    def read(self, sent: Mapping[str, str]) -> dict[str, Any]:
        """The document that a form says. What is no number stays text, for the document's own check to refuse."""
        return self._read_group(self._schema, "", sent, self._left_out)

    # --- the form -----------------------------------------------------------------------------------------------------

    def _group(
        self, schema: Schema, at: str, value: Mapping[str, Any], left_out: frozenset[str] = frozenset()
    ) -> list[Node]:
        return [
            self._node(inner, f"{at}{name}", name, value.get(name, inner.get("default")), name in _required(schema))
            for name, inner in self._properties(schema, value)
            if name not in left_out
        ]

    def _node(self, schema: Schema, name: str, label: str, value: Any, required: bool) -> Node:
        told, schema = schema.get("description", ""), self._plain(schema, value)
        node = Node("text", name, label, told.split("\n")[0], value, required, schema)
        match schema.get("type"):
            case _ if "enum" in schema:
                node.kind, node.choices = "choice", list(schema["enum"])
            case "boolean":
                node.kind = "check"
            case "integer":
                node.kind = "number"
            case "array" if self._is_simple(schema["items"]):
                node.kind, node.value = "lines", "\n".join(map(str, value or ()))
            case "array":
                node.kind, node.inner = "list", list(self._items(schema, name, value or []))
            case "object" if "properties" in schema:
                inner = self._group(schema, f"{name}.", value or {})
                node.kind, node.inner = "group", _unfilled(inner) if value is None else inner
            case "object":
                node.kind, node.inner = "map", list(self._entries(schema, name, value or {}))
        return node

    def _items(self, schema: Schema, name: str, values: list[Any]) -> Iterator[Node]:
        for number, value in enumerate(values):
            yield self._item(schema["items"], f"{name}.{number}", str(value.get("kind") or number + 1), value)
        if not self._is_union(schema["items"]):
            yield self._item(schema["items"], f"{name}.{len(values)}", NEW, {}, spare=True)

    def _entries(self, schema: Schema, name: str, values: Mapping[str, Any]) -> Iterator[Node]:
        for key, value in values.items():
            yield self._item(schema["additionalProperties"], f"{name}.{_part(key)}", key, value)
        yield self._item(schema["additionalProperties"], f"{name}.{NEW}", NEW, {}, spare=True)

    def _item(self, schema: Schema, name: str, label: str, value: Any, spare: bool = False) -> Node:
        inner = self._group(self._plain(schema, value), f"{name}.", value)
        variant = value.get("kind", "") if self._is_union(schema) else ""
        return Node("group", name, label, inner=_unfilled(inner) if spare else inner, spare=spare, variant=variant)

    # --- reading it back ----------------------------------------------------------------------------------------------

    def _read_group(
        self, schema: Schema, at: str, sent: Mapping[str, str], left_out: frozenset[str] = frozenset()
    ) -> dict[str, Any]:
        kind = sent.get(f"{at}kind", "")
        found: dict[str, Any] = {"kind": kind} if kind else {}
        for name, inner in self._properties(schema, {"kind": kind}):
            if name not in left_out and (value := self._read(inner, f"{at}{name}", sent)) is not None:
                found[name] = value
        return found

    def _read(self, schema: Schema, name: str, sent: Mapping[str, str], *, is_item: bool = False) -> Any:
        """A field's value; None where nothing is written. A group has fields that say no by being absent, so only one
        that may be left out, or an item that nobody has written, is nothing."""
        may_be_absent = is_item or "anyOf" in schema
        schema, text = self._plain(schema, {"kind": sent.get(f"{name}.kind")}), sent.get(name, "").strip()
        match schema.get("type"):
            case "boolean":
                return text == "true"
            case "integer":
                return int(text) if text.lstrip("-").isdecimal() else text or None
            case "array" if self._is_simple(schema["items"]):
                return [line.strip() for line in text.splitlines() if line.strip()]
            case "array":
                return self._read_items(schema, name, sent)
            case "object" if "properties" in schema:
                if may_be_absent and not _written(f"{name}.", sent):
                    return None
                return self._read_group(schema, f"{name}.", sent)
            case "object":
                return self._read_entries(schema, name, sent)
            case _:
                return text or None

    def _read_items(self, schema: Schema, name: str, sent: Mapping[str, str]) -> list[Any]:
        numbers = sorted({int(part) for part in _next_parts(f"{name}.", sent) if part.isdecimal()})
        kept = [f"{name}.{number}" for number in numbers if not _gone(f"{name}.{number}", sent)]
        return [item for each in kept if (item := self._read(schema["items"], each, sent, is_item=True)) is not None]

    def _read_entries(self, schema: Schema, name: str, sent: Mapping[str, str]) -> dict[str, Any]:
        found = {}
        for part in dict.fromkeys(_next_parts(f"{name}.", sent)):
            called = sent.get(f"{name}.{NEW}.{NAME}", "").strip() if part == NEW else unquote(part)
            if called and not _gone(f"{name}.{part}", sent):
                found[called] = self._read(schema["additionalProperties"], f"{name}.{part}", sent) or {}
        return found

    # --- the schema ---------------------------------------------------------------------------------------------------

    def _plain(self, schema: Schema, value: Any) -> Schema:
        """The schema that holds for a value: references followed, a nothing left out, one variant chosen by `kind`."""
        while True:
            if "$ref" in schema:
                schema = self._definitions[schema["$ref"].rsplit("/", 1)[1]]
            elif "anyOf" in schema:
                schema = next(each for each in schema["anyOf"] if each.get("type") != "null")
            elif "oneOf" in schema:
                mapping = schema["discriminator"]["mapping"]
                kind = value.get("kind") if isinstance(value, Mapping) else None
                schema = {"$ref": mapping[kind]} if kind in mapping else {"type": "object", "properties": {}}
            else:
                return schema

    def _properties(self, schema: Schema, value: Any) -> Iterator[tuple[str, Schema]]:
        for name, inner in self._plain(schema, value).get("properties", {}).items():
            if "const" not in inner:
                yield name, inner

    def _is_simple(self, schema: Schema) -> bool:
        return not self._is_union(schema) and self._plain(schema, None).get("type") != "object"

    def _is_union(self, schema: Schema) -> bool:
        return "oneOf" in schema


def _required(schema: Schema) -> list[str]:
    required: list[str] = schema.get("required", [])
    return required


def _unfilled(nodes: list[Node]) -> list[Node]:
    """The fields of an item that need not be there: none must be filled in, and no default counts as written."""
    for node in nodes:
        node.required = False
        _unfilled(node.inner)
    return nodes


def _next_parts(at: str, sent: Mapping[str, str]) -> list[str]:
    """What follows a place in the names of fields, as often as it does."""
    return [name[len(at) :].split(".")[0] for name in sent if name.startswith(at)]


def _written(at: str, sent: Mapping[str, str]) -> bool:
    """Whether anything below a place is written. A box that is not ticked is not sent."""
    return any(value.strip() for name, value in sent.items() if name.startswith(at))


def _gone(name: str, sent: Mapping[str, str]) -> bool:
    return sent.get(f"{name}.{REMOVED}") == "yes"


def _part(key: str) -> str:
    """A key as a part of a field's name, which dots part."""
    return quote(key, safe="").replace(".", "%2E")
