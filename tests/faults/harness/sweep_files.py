"""Making sweep files that nobody would write: mutated ones, generated ones, and bytes that are no YAML at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from orchestrator.sweep.loading import load_sweep
from orchestrator.sweep.schema import sweep_json_schema

from .hostile_values import KEYS, NUMBERS, RAW, SCALARS, TEXTS, VALUES, Fields, flow

REPOSITORY = Path(__file__).parents[3]
EXTENDED = "base.yaml"
BASES = {
    str(path.relative_to(REPOSITORY)): load_sweep(path).text.encode()
    for folder in ("sweeps", "sweeps/paper")
    for path in sorted((REPOSITORY / folder).glob("*.yaml"))
}
"""The sweep files that users run, by name; those that extend another one written out."""


@dataclass(frozen=True)
class Case:
    """Hold what a plan is asked for.

    Attributes:
        content: The file's bytes.
        overrides: Values of ``--set``.
        extended: The bytes of ``EXTENDED``, a file beside it.
    """

    content: bytes
    overrides: tuple[str, ...] = ()
    extended: bytes = b""


def as_tree(value: Any) -> Any:
    """Turn a value of YAML into a tree that can be mutated."""
    if isinstance(value, dict):
        return Fields((key, as_tree(inner)) for key, inner in value.items())
    return [as_tree(inner) for inner in value] if isinstance(value, list) else value


TREES = {name: as_tree(yaml.safe_load(content)) for name, content in BASES.items()}


def write(tree: Any) -> bytes:
    """Write a tree as a file, each field of its top level in a line of its own."""
    is_plain = isinstance(tree, Fields) and tree
    text = "\n".join(f"{flow(key)}: {flow(value)}" for key, value in tree) if is_plain else flow(tree)
    return text.encode("utf-8", "surrogatepass")


def _places(tree: Any) -> Iterator[tuple[list[Any], int]]:
    """Yield every place below a tree as its container and index."""
    if isinstance(tree, list):
        for index, entry in enumerate(tree):
            yield tree, index
            yield from _places(entry[1] if isinstance(tree, Fields) else entry)


def _copied(tree: Any) -> Any:
    if isinstance(tree, Fields):
        return Fields((key, _copied(value)) for key, value in tree)
    return [_copied(value) for value in tree] if isinstance(tree, list) else tree


def _mutate_tree(draw: Callable[..., Any], tree: Any) -> None:
    """Change one place of a tree."""
    places = list(_places(tree))
    if not places:
        return
    container, index = places[draw(st.integers(0, len(places) - 1))]
    entry = container[index]
    is_pair = isinstance(container, Fields)
    match draw(st.sampled_from(["replace", "replace", "replace", "delete", "repeat", "rename", "wrap", "insert"])):
        case "replace":
            old = entry[1] if is_pair else entry
            alike = TEXTS if isinstance(old, str) else NUMBERS if isinstance(old, int | float) else VALUES
            new = draw(alike | VALUES)
            container[index] = (entry[0], new) if is_pair else new
        case "delete":
            del container[index]
        case "repeat":
            container.insert(index, _copied([entry])[0])
        case "rename" if is_pair:
            container[index] = (draw(KEYS | TEXTS | RAW | NUMBERS), entry[1])
        case "wrap":
            container[index] = (entry[0], [entry[1]]) if is_pair else Fields([(draw(KEYS), entry)])
        case _:
            container.insert(index, (draw(KEYS), draw(VALUES)) if is_pair else draw(VALUES))


@st.composite
def mutated_trees(draw: Callable[..., Any]) -> bytes:
    """Change a few places of a file that users run."""
    tree = _copied(TREES[draw(st.sampled_from(sorted(TREES)))])
    for _ in range(draw(st.integers(1, 3))):
        _mutate_tree(draw, tree)
    return write(tree)


CHANGES = ("insert", "remove", "flip", "swap", "cut", "bom", "crlf", "tabs", "utf16", "double")
PIECES = st.sampled_from(
    [
        *(b"[", b"]", b"{", b"}", b":", b": ", b",", b"- ", b"'", b'"', b"\n", b"\t", b"\r\n", b" ", b"#", b"&a"),
        *(b"*a", b"!", b"|", b">", b"%", b"@", b"?", b"---\n", b"...\n", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80"),
        *(b"\x00", b"null", b"-1", b".inf", b"1e9", b"x", b"\xc2\x85", b"\xe2\x80\xa8", b"\x1b", b"\\"),
    ]
) | st.binary(max_size=6)


@st.composite
def mutated_texts(draw: Callable[..., Any]) -> bytes:
    """Change the bytes of a file that users run."""
    content = BASES[draw(st.sampled_from(sorted(BASES)))]
    start = content.find(b"\nquestion")  # comments in front are not worth a mutation
    content = content[max(start, 0) :]
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(content)))
        match draw(st.sampled_from(CHANGES)):
            case "insert":
                content = content[:at] + draw(PIECES) + content[at:]
            case "remove":
                content = content[:at] + content[at + draw(st.integers(1, 20)) :]
            case "flip" if at < len(content):
                content = content[:at] + bytes([content[at] ^ 1 << draw(st.integers(0, 7))]) + content[at + 1 :]
            case "swap":
                lines = content.splitlines(keepends=True)
                if lines:
                    lines.insert(draw(st.integers(0, len(lines) - 1)), lines.pop(at % len(lines)))
                content = b"".join(lines)
            case "cut":
                content = content[:at]
            case "bom":
                content = b"\xef\xbb\xbf" + content
            case "crlf":
                content = content.replace(b"\n", b"\r\n")
            case "tabs":
                content = content.replace(b"  ", b"\t", 1)
            case "utf16":
                content = content.decode("latin-1").encode("utf-16")
            case _:
                content += content
    return content


SCHEMA = sweep_json_schema(written_out=True)
_DEEPEST = 6
_LANGUAGES = {
    "components": ("none", "norm", "qkv", "norm+qkv+mlp", "mlp(lora:8)", "final_norm", "layerscale"),
    "blocks": ("all", "first-third", "last-half", "0:1", "2:5", "0:9"),
    "specialize": ("none", "norm@all+qkv@first-third", "qkv(lora:4)@0:2+qkv@2:4", "norm(gate)", "q+k+v", "mlp@0:99"),
    "modes": ("full", "gate", "gate:token", "lora:1", "lora:64", "lora:999"),
    "high_norm": ("vanilla", "registers:1", "registers:999", "attention_bias"),
    "probes": ("knn", "linear", "segmentation", "depth"),
    "metric": ("knn_top1", "segmentation_miou"),
    "checkpoint": ("x.safetensors", "hf-hub:nobody/nothing", "vit_small_patch16_224.augreg_in21k", ".", "~"),
    "checkpoint_sha256": ("0" * 64,),
    "extends": (EXTENDED, EXTENDED, "sweep.yaml", "nothing.yaml", ".", "http://x/y.yaml"),
    "model": ("test_vit", "test_vit.r160_in1k", "test_vit.nobody", "resnet18"),
}
"""What texts say that the schema does not describe, by the field that holds them."""
_VARIED = {
    "model.scale": ("nano", "micro", "tiny"),
    "model.patch_size": (4, 8, 5),
    "objective.recipe": ("dinov2_cpu", "deit3_cpu", "mae_cpu"),
    "objective.lr": (1e-3, 1, 0),
    "objective.local_size": (16, 18),
    "data.image_size": (32, 64),
}
"""Fields that vary, and values of theirs."""


@st.composite
def _from_schema(draw: Callable[..., Any], schema: dict[str, Any], field: str, depth: int = 0) -> Any:
    """Draw a tree that a JSON schema describes, but for a few places of it."""
    schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    if depth > _DEEPEST or draw(st.integers(0, 80)) == 80:
        return draw(VALUES)
    members = schema.get("anyOf") or schema.get("oneOf")
    if members:
        return draw(_from_schema(draw(st.sampled_from(members)), field, depth))
    if "const" in schema or "enum" in schema:
        return schema["const"] if "const" in schema else draw(st.sampled_from(schema["enum"]))
    match schema.get("type"):
        case "object":
            return draw(_fields_of(schema, depth))
        case "array":
            entries = schema.get("prefixItems")
            if entries is None:
                least = schema.get("minItems", 0)
                entries = [schema.get("items", {})] * draw(st.integers(least, max(least, 2)))
            return [draw(_from_schema(entry, field, depth + 1)) for entry in entries]
        case "boolean":
            return draw(st.booleans())
        case "null":
            return None
        case "integer" | "number" as kind:
            return draw(_numbers(schema, is_whole=kind == "integer"))
    return draw(st.sampled_from(_LANGUAGES[field]) if field in _LANGUAGES else TEXTS)


@cache
def _bounds(least: float, most: float, *, is_whole: bool) -> st.SearchStrategy[Any]:
    if is_whole:
        far = [value for value in (1 << 20, 2**63 - 1) if least <= value <= most]
        near = st.integers(int(least), int(min(least + 70, most))) | st.sampled_from([4, 8, 16, 32, 64])
        return near | st.sampled_from(far) if far else near
    far = [value for value in (5e-324, 1e-9, 1.0, 2.5, 1e9, 1e300, 1.7976931348623157e308) if least <= value <= most]
    return st.floats(least, min(most, 1.0)) | st.sampled_from([least, *far])


def _numbers(schema: dict[str, Any], *, is_whole: bool) -> st.SearchStrategy[Any]:
    step = 1.0 if is_whole else 1e-3
    least = schema.get("minimum", schema.get("exclusiveMinimum", -step) + step)
    most = schema.get("maximum", schema.get("exclusiveMaximum", float("inf")) - step)
    return _bounds(least, most, is_whole=is_whole)


@st.composite
def _fields_of(draw: Callable[..., Any], schema: dict[str, Any], depth: int) -> Fields:
    properties, pairs = schema.get("properties", {}), Fields()
    for name, inner in properties.items():
        is_wanted = name in schema.get("required", ()) or "const" in inner
        if is_wanted or draw(st.integers(0, 7)) == 0:
            pairs.append((name, draw(_from_schema(inner, name, depth + 1))))
    if "patternProperties" in schema and draw(st.integers(0, 9)):
        for name in draw(st.lists(st.sampled_from(sorted(_VARIED)), min_size=1, max_size=3, unique=True)):
            values = st.sampled_from(_VARIED[name])
            pairs.append((name, draw(values | st.lists(values, min_size=1, max_size=3, unique=True))))
    elif not properties:
        pairs += [(draw(KEYS), draw(st.lists(SCALARS, max_size=3) | VALUES)) for _ in range(draw(st.integers(0, 2)))]
    return pairs


def _has_fields(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a section of one kind, none for a section of several."""
    inner = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    return dict(inner.get("properties", {}))


_OFTEN = ("ablate", "ablate", "vary", "vary", "model", "data", "objective", "probes")


@st.composite
def refitted_files(draw: Callable[..., Any]) -> bytes:
    """Set fields of a file that users run to other values of their types."""
    tree = _copied(TREES[draw(st.sampled_from(sorted(TREES)))])
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from([*SCHEMA["properties"], *_OFTEN]))
        schema, fields = SCHEMA["properties"][name], tree
        sections = [value for key, value in tree if key == name and isinstance(value, Fields)]
        known = _has_fields(schema)
        if sections and not known:  # of several kinds: the fields of that kind that is set
            key = schema["discriminator"]["propertyName"] if "discriminator" in schema else ""
            kind = next((value for field, value in sections[0] if field == key), None)
            if isinstance(kind, str) and kind in schema["discriminator"]["mapping"]:
                known = _has_fields({"$ref": schema["discriminator"]["mapping"][kind]})
        if sections and known and draw(st.integers(0, 5)):
            fields, name = sections[0], draw(st.sampled_from(sorted(known)))
            schema = known[name]
        fields[:] = [*(pair for pair in fields if pair[0] != name), (name, draw(_from_schema(schema, name, 1)))]
    return write(tree)


@st.composite
def extending_files(draw: Callable[..., Any]) -> bytes:
    """Give some fields to a file that takes the others over."""
    names = draw(st.lists(st.sampled_from([*SCHEMA["properties"], *_OFTEN]), max_size=3, unique=True))
    fields = [(name, draw(_from_schema(SCHEMA["properties"][name], name, 1) | st.none())) for name in names]
    return write(Fields([("extends", EXTENDED), *fields]))


OVERRIDES = (
    st.tuples(
        st.lists(KEYS, min_size=1, max_size=3).map(".".join)
        | st.sampled_from(["\udc80", "vary.model.\udc80", ".".join("a" * 40), ".".join("a" * 2000), "", " seeds "])
        | st.sampled_from(["vary.model.scale", "vary.objective.lr", "vary.", "a..b", "seeds.0", "name.x"])
        | st.text(max_size=8),
        st.sampled_from(["=", "=", "=", "=", "==", ""]),
        VALUES.map(flow) | TEXTS,
    )
    .map("".join)
    .map(lambda text: text.replace("\x00", ""))  # no argument of a program can hold it
)

_CONTENTS = (
    *[refitted_files()] * 7,
    *[mutated_trees()] * 5,
    *[mutated_texts()] * 3,
    *[_from_schema(SCHEMA, "").map(write)] * 3,
    st.binary(max_size=60) | VALUES.map(write),
)
"""Each as often as it stands here."""


@st.composite
def cases(draw: Callable[..., Any]) -> Case:
    """Draw what a plan is asked for."""
    if draw(st.integers(0, 7)) == 0:
        return Case(draw(st.sampled_from(sorted(BASES.values()))), (draw(OVERRIDES),))
    content, extended = draw(_CONTENTS[draw(st.integers(0, len(_CONTENTS) - 1))]), b""
    if draw(st.integers(0, 7)) == 0:
        content, extended = draw(extending_files()), content
    has_overrides = draw(st.integers(0, 7)) == 0
    overrides = tuple(draw(st.lists(OVERRIDES, min_size=1, max_size=2))) if has_overrides else ()
    return Case(content, overrides, extended)
