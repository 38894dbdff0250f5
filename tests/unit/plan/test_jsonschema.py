"""The schema that editors get describes every key, with examples and defaults that a plan may really have."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cleanroomd.plan import schema
from cleanroomd.plan.jsonschema import json_schema

TABLES = (*schema.ITEMS.values(), *schema.PARTS.values(), *schema.PROBES.values())


def properties() -> Iterator[tuple[str, dict[str, Any]]]:
    document = json_schema()
    for name, definition in {"plan": document, **document["$defs"]}.items():
        for key, value in definition.get("properties", {}).items():
            yield f"{name}.{key}", value


def test_every_key_is_described() -> None:
    found = dict(properties())
    assert len(found) > 50
    assert {key for key, value in found.items() if not value.get("description", "").endswith(".")} == set()


def test_defaults_are_as_a_file_would_write_them() -> None:
    found = dict(properties())
    assert found["ServiceTable.ready_timeout"]["default"] == "5m"
    assert found["ServiceTable.firmware"]["default"] == "bios"
    assert found["ServiceTable.retries"]["default"] == 2
    assert "default" not in found["ServiceTable.memory_min"]
    assert "null" not in json.dumps(json_schema())


def test_unknown_keys_are_refused_by_editors_too() -> None:
    document = json_schema()
    tables = [document, *(each for each in document["$defs"].values() if each["type"] == "object")]
    assert all(table["additionalProperties"] is False for table in tables)


@pytest.mark.parametrize("table", TABLES)
def test_examples_are_valid_together(table: type[schema.Table]) -> None:
    examples = {field.alias or name: (field.examples or [])[0] for name, field in table.model_fields.items()}
    if table is schema.MatchTable:
        for key, example in examples.items():
            table.model_validate({key: example})
    else:
        table.model_validate(examples)
