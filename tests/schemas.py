"""JSON schemas of tests, and what asks whether one allows an answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

TEXT = {"type": "string"}
CITY = {"type": "object", "properties": {"city": TEXT}, "required": ["city"]}
PER_LETTER = {"type": "object", "propertyNames": {"enum": ["a", "b"]}, "additionalProperties": {"type": "integer"}}
Allows = Callable[[dict[str, Any], str], bool]


def reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/$defs/{name}"}
