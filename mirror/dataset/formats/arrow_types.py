"""Types of Arrow columns: as they are read, and as they hold new URLs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mirror.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa


def without_views(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch without view types: Parquet has none, and Arrow cannot take rows from them."""
    import pyarrow as pa

    def plain(kind: Any) -> Any:
        if kind == pa.string_view():
            return pa.large_string()
        return pa.large_binary() if kind == pa.binary_view() else kind

    if not any("_view" in str(kind) for kind in batch.schema.types):
        return batch
    fields = [field.with_type(_with_leaves(field.type, plain)) for field in batch.schema]
    return batch.cast(pa.schema(fields, metadata=batch.schema.metadata))


def times_as_numbers(kind: Any) -> Any:
    """The type with times as numbers, so that Python holds nanoseconds and the year 20000 exactly."""
    import pyarrow as pa

    def number(leaf: Any) -> Any:
        if not pa.types.is_temporal(leaf):
            return leaf
        return pa.int32() if pa.types.is_time32(leaf) or pa.types.is_date32(leaf) else pa.int64()

    return _with_leaves(kind, number)


def _with_leaves(kind: Any, leaf: Callable[[Any], Any]) -> Any:
    """The type with each innermost type replaced."""
    import pyarrow as pa

    if is_list(kind):
        item = kind.value_field.with_type(_with_leaves(kind.value_type, leaf))
        is_fixed = pa.types.is_fixed_size_list(kind)
        return pa.list_(item, kind.list_size) if is_fixed else _list_of(item, kind)
    if pa.types.is_struct(kind):
        return pa.struct([inner.with_type(_with_leaves(inner.type, leaf)) for inner in kind])
    if pa.types.is_map(kind):
        return pa.map_(_with_leaves(kind.key_type, leaf), _with_leaves(kind.item_type, leaf))
    return leaf(kind)


def check_text(kind: Any, path: Sequence[str], file: str) -> None:
    """Raise UsageError if a path in a column of this type does not lead to text."""
    import pyarrow as pa

    inner = kind
    for name in path[1:]:
        inner = item_type(inner)
        at = inner.get_field_index(name) if pa.types.is_struct(inner) else -1
        if at < 0:
            raise UsageError(
                f"{file} has no {name!r} in its column {path[0]!r} ({kind}); "
                "name the column of the URL with --url-field."
            )
        inner = inner.field(at).type
    inner = item_type(inner)
    texts = ("string", "large_string", "string_view", "null")
    if str(plain_type(inner)) not in texts:
        raise UsageError(
            f"{file} holds {inner} in {'.'.join(path)!r}, not text; "
            "name the column of the URL with --url-field."
        )


def item_type(kind: Any) -> Any:
    while is_list(kind):
        kind = kind.value_type
    return kind


def is_list(kind: Any) -> bool:
    import pyarrow as pa

    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def plain_type(kind: Any) -> Any:
    """The type for new URLs: no dictionary, which suits few values, and no list of a fixed size."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return kind.value_type
    if is_list(kind):
        return _list_of(kind.value_field.with_type(plain_type(kind.value_type)), kind)
    return kind


def _list_of(item: Any, kind: Any) -> Any:
    """The type of a list of any length, with other items."""
    import pyarrow as pa

    return pa.large_list(item) if pa.types.is_large_list(kind) else pa.list_(item)


def with_url_fields(
    fields: dict[str, Any], path: Sequence[str], source: str | None
) -> dict[str, Any]:
    """Fields with the types for new URLs, and with `source` for the original URLs.

    `source` keeps its place if it exists; otherwise it comes after the URL.
    """
    import pyarrow as pa

    name, *rest = path
    if rest:
        return fields | {name: _with_nested_fields(fields[name], rest, source)}
    fields = fields | {name: fields[name].with_type(plain_type(fields[name].type))}
    kind = fields[name].type
    if source in fields:
        held = fields[source]
        of = kind if pa.types.is_null(held.type) else plain_type(held.type)
        return fields | {source: held.with_type(of)}
    beside: dict[str, Any] = {}
    for each, field in fields.items():
        beside[each] = field
        if each == name and source is not None:
            beside[source] = pa.field(source, kind)
    return beside


def _with_nested_fields(field: Any, path: Sequence[str], source: str | None) -> Any:
    import pyarrow as pa

    kind = field.type
    if is_list(kind):
        item = _with_nested_fields(kind.value_field, path, source)
        return field.with_type(_list_of(item, kind))
    fields = with_url_fields({inner.name: inner for inner in kind}, path, source)
    return field.with_type(pa.struct(list(fields.values())))
