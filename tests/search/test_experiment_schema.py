"""The JSON Schema of an experiment file: legal itself, complete, and as strict as one value at a time allows."""

import json

import pytest
from jsonschema import Draft202012Validator

from search.experiment.schema import json_schema, write_schema
from search.experiment.sections import ExperimentFile
from search.experiment.table import DIMENSIONS

GOOD = {"name": "x", "task": {"kind": "denoise"}, "space": {}}


def accepts(section, key, value):
    data = {**GOOD, section: {**GOOD.get(section, {}), key: value}}
    return Draft202012Validator(json_schema()).is_valid(data)


def descriptions(node):
    if isinstance(node, dict):
        yield from ([node["description"]] if isinstance(node.get("description"), str) else [])
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from descriptions(child)


def test_the_schema_is_a_legal_schema_of_its_draft():
    assert json_schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(json_schema())


def test_the_smallest_file_is_accepted_and_a_smaller_one_is_not():
    validator = Draft202012Validator(json_schema())
    assert validator.is_valid(GOOD)
    assert not any(validator.is_valid({k: v for k, v in GOOD.items() if k != key}) for key in GOOD)


def test_every_section_and_every_dimension_is_described():
    schema = json_schema()
    assert set(schema["properties"]) == set(ExperimentFile.model_fields)
    space = schema["properties"]["space"]["properties"]
    assert set(space) == set(DIMENSIONS)
    assert all(DIMENSIONS[name].about in space[name]["description"] for name in space)
    assert all(text.endswith(".") for text in descriptions(schema))


def test_the_schema_has_no_null_and_no_machine_made_titles():
    text = json.dumps({**json_schema(), "title": ""})
    assert "null" not in text
    assert text.count('"title"') == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("width", 16),
        ("width", [16, 32]),
        ("width", {"min": 16, "max": 32, "step": 8}),
        ("width", {"choices": [16, 32]}),
        ("width", {"choices": {"min": 16, "max": 32, "step": 8}}),
        ("expansion", {"min": 1, "max": 2, "step": 0.25}),
        ("encoder_blocks", {"1": 1, "2": [1, 2], "3": {"min": 1, "max": 4}}),
        ("kernel_size", [3, 13]),
        ("attention", {"choices": ["none", "window"], "when": {"levels": [2, 3], "mixer": "naf"}}),
        ("num_experts", {"min": 1, "max": 4, "when": {"levels": 2}}),
        ("attention_stages", ["mid", "enc1+dec1", "deepest"]),
        ("frequency_split", [True, False]),
    ],
)
def test_every_form_of_a_dimension_is_accepted(key, value):
    assert accepts("space", key, value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("width", 17),
        ("width", 258),
        ("width", True),
        ("width", []),
        ("width", None),
        ("width", {"choices": [16], "when": {"levels": 2}}),
        ("width", {"choices": {"choices": [16]}}),
        ("expansion", {"min": 1, "max": 2}),
        ("encoder_blocks", {"2": 1}),
        ("encoder_blocks", {"1": 1, "4": 1}),
        ("kernel_size", 4),
        ("mixer", {"min": "naf", "max": "naf"}),
        ("attention", {"when": {"levels": 2}}),
        ("attention", {"choices": ["none"], "when": {}}),
        ("attention", {"choices": ["none"], "when": {"levels": 4}}),
        ("attention", {"choices": ["none"], "when": {"encoder_blocks": 1}}),
        ("attention", {"choices": ["none"], "when": {"num_experts": 2}}),
        ("attention_stages", "enc4"),
        ("attention_stages", "mid+"),
        ("frequency_split", 1),
    ],
)
def test_a_wrong_form_of_a_dimension_is_refused(key, value):
    assert not accepts("space", key, value)


@pytest.mark.parametrize(
    ("section", "key", "value", "legal"),
    [
        ("task", "sigma", 25, True),
        ("task", "quality", 30, False),
        ("task", "upscale", 2, False),
        ("task", "data", "photos", True),
        ("task", "data", {"train": "a", "validation": "b"}, True),
        ("task", "data", {"train": "a"}, False),
        ("task", "data", {"folder": "a", "train": "b", "validation": "c"}, False),
        ("budget", "macs_g", 3, True),
        ("budget", "macs_g", {"max": 3, "at": [64, 64]}, True),
        ("budget", "macs_g", {"at": [64, 64, 3]}, False),
        ("budget", "params_m", {"max": 3}, True),
        ("budget", "params_m", {"max": 3, "at": [64, 64]}, False),
        ("execution", "workers", "auto", True),
        ("execution", "workers", 2, True),
        ("execution", "workers", "all", False),
    ],
)
def test_the_other_sections_are_as_strict_as_the_loader(section, key, value, legal):
    assert accepts(section, key, value) == legal


def test_the_schema_is_written_as_readable_json_with_a_last_newline(tmp_path):
    write_schema(tmp_path / "schema.json")
    text = (tmp_path / "schema.json").read_text(encoding="utf-8")
    assert json.loads(text) == json_schema()
    assert text.endswith("}\n")
    assert "×" in text or "…" in text
