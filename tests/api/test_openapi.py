"""The document is right in itself, names what there is, and what is answered is what it says."""

from __future__ import annotations

import re
from typing import Any

from api.conftest import Serve

JSON_TYPES: dict[str, Any] = {
    "object": dict, "array": list, "string": str, "boolean": bool, "null": type(None),
    "integer": int, "number": (int, float),
}  # fmt: skip


def check(value: Any, schema: dict[str, Any], document: dict[str, Any], where: str = "$") -> None:
    """The part of JSON Schema that we use."""
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        problems = []
        for one in schema["anyOf"]:
            try:
                return check(value, one, document, where)
            except AssertionError as problem:
                problems.append(str(problem))
        raise AssertionError(problems)
    if "enum" in schema:
        assert value in schema["enum"], where
    if "type" in schema:
        assert isinstance(value, JSON_TYPES[schema["type"]]), f"{where}: {value!r} is no {schema['type']}"
        assert not (isinstance(value, bool) and schema["type"] in ("integer", "number")), where
    for name in schema.get("required", ()):
        assert name in value, f"{where}.{name} is missing"
    for name, inner in schema.get("properties", {}).items():
        if name in value:
            check(value[name], inner, document, f"{where}.{name}")
    if isinstance(value, list) and "items" in schema:
        for number, item in enumerate(value):
            check(item, schema["items"], document, f"{where}[{number}]")


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if "$ref" in value else []
        return own + [found for inner in value.values() for found in references(inner)]
    return [found for inner in value for found in references(inner)] if isinstance(value, list) else []


async def test_the_document_is_right_in_itself(serve: Serve) -> None:
    async with serve() as running, running.status() as http:
        document = (await http.get("/v1/openapi.json")).json()
        assert document["openapi"] == "3.1.0"
        assert document["info"]["version"] == "1.0.0"
        names: set[str] = set()
        for path, operations in document["paths"].items():
            assert path.startswith("/")
            for method, operation in operations.items():
                assert method in ("get", "post")
                assert operation["summary"]
                assert operation["operationId"] not in names
                names.add(operation["operationId"])
                told = {one["name"] for one in operation.get("parameters", ()) if one["in"] == "path"}
                assert told == set(re.findall(r"{(\w+)}", path)), path
                (good,) = {"200", "202"} & set(operation["responses"])
                assert operation["responses"][good]["description"]
        for reference in references(document):
            target: Any = document
            for step in reference.removeprefix("#/").split("/"):
                target = target[step]
        for needed in ("/", "/healthz", "/v1/units/{name}/logs", "/v1/events", "/v1/store/txn", "/v1/update/rollback"):
            assert needed in document["paths"]


async def test_answers_are_as_described(serve: Serve) -> None:
    async with serve() as running, running.status() as http:
        document = (await http.get("/v1/openapi.json")).json()
        for path, operations in document["paths"].items():
            operation = operations.get("get")
            if operation is None or path == "/v1/events" or operation["x-control-socket-only"]:
                continue
            answer = await http.get(path.replace("{name}", "web"))
            kind = answer.headers["content-type"]
            if answer.status_code == 503 and "update" in path:
                check(answer.json(), document["components"]["schemas"]["Error"], document)
                continue
            assert answer.status_code == 200, path
            expected, *others = operation["responses"]["200"]["content"]
            for other in others:
                again = await http.get(path.replace("{name}", "web"), headers={"Accept": other})
                assert again.headers["content-type"].startswith(other), path
            assert kind.startswith(expected), path
            if expected == "application/json":
                check(answer.json(), operation["responses"]["200"]["content"][expected]["schema"], document)


async def test_what_a_body_may_hold_is_listed_whole(serve: Serve) -> None:
    """Each key that the document names is taken, and no other: a client made of it can say everything."""
    async with serve() as running, running.control() as http:
        document = (await http.get("/v1/openapi.json")).json()
        for path, operations in document["paths"].items():
            if "post" not in operations:
                continue
            body = operations["post"]["requestBody"]["content"]["application/json"]["schema"]
            assert body["additionalProperties"] is False, path
            asked = await http.post(path.replace("{name}", "web"), json={"no-such-key": 1})
            assert asked.status_code in (400, 503), path  # 503: what the simulated node cannot do at all
        key = {"key": "YQ=="}
        whole = {**key, "keys_only": True, "count_only": False, "sort_target": "mod", "sort_order": "descend"}
        ranges = document["paths"]["/v1/store/range"]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert set(whole) <= set(ranges["properties"])
        check(whole, ranges, document)
        assert (await http.post("/v1/store/range", json=whole)).status_code == 200
        watch = document["paths"]["/v1/store/watch"]["get"]["parameters"]
        assert [one["name"] for one in watch if one["required"]] == ["key"]
        txn = document["paths"]["/v1/store/txn"]["post"]["requestBody"]["content"]["application/json"]["schema"]
        check({"compare": [{**key, "target": "version", "operand": 1}], "success": [{"put": key}]}, txn, document)
