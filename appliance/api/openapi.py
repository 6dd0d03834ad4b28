"""The OpenAPI 3.1 document, made from the table of routes. Pure; made when somebody asks."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from appliance.api.router import Route

SCALARS: Mapping[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    bytes: {"type": "string", "contentEncoding": "base64"},
    type(None): {"type": "null"},
}
TEXT = {"pattern": "^[^\\u0000-\\u001f\\u007f]*$"}  # of a target: what has a control character is refused
ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["kind", "message", "where"],
            "properties": {
                "kind": {
                    "type": "string",
                    "enum": [
                        "input", "not-found", "conflict", "unavailable", "not-yet", "not-running", "untrusted",
                        "corrupt", "error",
                    ],
                },
                "message": {"type": "string", "description": "cannot VERB OBJECT: CAUSE"},
                "where": {"type": "string"},
            },
        }
    },
}  # fmt: skip


def document(routes: Iterable[Route], version: str) -> dict[str, Any]:
    """The whole document, plain."""
    components: dict[str, Any] = {"Error": ERROR}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.pattern, {})[route.method.lower()] = _operation(route, components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Appliance",
            "version": version,
            "summary": "One file that turns a Linux host into a self-updating, self-healing node.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "The status endpoint reads; the control socket does everything."}],
        "tags": [{"name": "read"}, {"name": "act"}],
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": {
                "Error": {
                    "description": "It could not be done; the message says why",
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
                }
            },
        },
    }


def _operation(route: Route, components: dict[str, Any]) -> dict[str, Any]:
    schema = {} if route.schema is None else schema_of(route.schema, components)
    content = {route.content_type: {"schema": schema}, **{kind: {} for kind in route.more_types}}
    operation: dict[str, Any] = {
        "operationId": _operation_id(route),
        "summary": route.summary,
        "tags": ["read" if route.reads else "act"],
        "x-control-socket-only": route.control,
        "responses": {
            str(route.status): {"description": route.answer, "content": content},
            **{str(status): {"description": text} for status, text in route.statuses.items()},
            "default": {"$ref": "#/components/responses/Error"},
        },
    }
    in_path = {segment[1:-1] for segment in route.segments if segment.startswith("{")}
    if route.parameters:
        operation["parameters"] = [
            {
                "name": parameter.name,
                "in": "path" if parameter.name in in_path else "query",
                "required": parameter.needed or parameter.name in in_path,
                "description": parameter.summary,
                "schema": {"type": parameter.type, **(TEXT if parameter.type == "string" else {})},
            }
            for parameter in route.parameters
        ]
    if route.method == "POST":
        body = {"type": "object", **(route.body or {}), "additionalProperties": False}
        operation["requestBody"] = {
            "required": bool(body.get("required")),
            "content": {"application/json": {"schema": body}},
        }
    return operation


def _operation_id(route: Route) -> str:
    words = [segment.strip("{}").replace(".", "-") for segment in route.segments if segment not in ("", "v1")]
    return "-".join([route.method.lower(), *words]) if words else f"{route.method.lower()}-page"


def schema_of(wanted: Any, components: dict[str, Any]) -> dict[str, Any]:
    """JSON Schema of a type (dataclasses become components), or of a dict that is one, with types inside it."""
    if isinstance(wanted, Mapping):
        return {key: _inside(value, components) for key, value in wanted.items()}
    if wanted in SCALARS:
        return dict(SCALARS[wanted])
    if isinstance(wanted, type) and is_dataclass(wanted):
        if wanted.__name__ not in components:
            components[wanted.__name__] = {}  # known before its fields are, for one that holds itself
            hints = typing.get_type_hints(wanted)
            components[wanted.__name__] = {
                "type": "object",
                "required": [field.name for field in fields(wanted)],
                "properties": {field.name: schema_of(hints[field.name], components) for field in fields(wanted)},
            }
        return {"$ref": f"#/components/schemas/{wanted.__name__}"}
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is typing.Annotated:
        return schema_of(arguments[0], components)
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [schema_of(one, components) for one in arguments]}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": schema_of(arguments[1], components)}
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return {"type": "array", "items": schema_of(arguments[0], components)}
    return {}


def _inside(value: Any, components: dict[str, Any]) -> Any:
    if isinstance(value, Mapping):
        return schema_of(value, components)
    if isinstance(value, type) or typing.get_origin(value) is not None:
        return schema_of(value, components)
    return value
