"""Strict TOML: dataclasses are the schema, every finding has its file, line and column. Pure."""

from appliance.schema.document import Document, Source, merged_data, raise_if_bad, read, read_merged
from appliance.schema.findings import Finding, describe, did_you_mean, format_path, quote
from appliance.schema.moments import parse_moment
from appliance.schema.plain import to_plain, to_toml
from appliance.schema.quantities import (
    Duration,
    DurationOrInfinity,
    Size,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)

__all__ = [
    "Document",
    "Duration",
    "DurationOrInfinity",
    "Finding",
    "Size",
    "Source",
    "describe",
    "did_you_mean",
    "format_duration",
    "format_path",
    "format_size",
    "merged_data",
    "parse_duration",
    "parse_moment",
    "parse_size",
    "quote",
    "raise_if_bad",
    "read",
    "read_merged",
    "to_plain",
    "to_toml",
]
