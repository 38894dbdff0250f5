"""The JSON schema of a plan file, for editors that complete and check TOML."""

from typing import Any

from cleanroomd.plan.schema import PlanFile

_NULL = {"type": "null"}


def json_schema() -> dict[str, Any]:
    """Draft 2020-12, with a description for every key, and defaults as the file would write them."""
    described = _table(PlanFile.model_json_schema(by_alias=True))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **described, "title": "Recovery plan"}


def _table(node: dict[str, Any]) -> dict[str, Any]:
    """Without what pydantic adds for Python's sake: titles made from names, and null, unknown to TOML."""
    kept = {key: _plain(value) for key, value in node.items() if key != "title" or not isinstance(value, str)}
    if _NULL in kept.get("anyOf", []):
        del kept["default"]
        (only,) = (choice for choice in kept.pop("anyOf") if choice != _NULL)
        kept = {**only, **kept}
    return kept


def _plain(node: Any) -> Any:
    if isinstance(node, list):
        return [_plain(item) for item in node]
    return _table(node) if isinstance(node, dict) else node
