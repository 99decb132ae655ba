"""Values that nobody would write into a sweep file, as trees, and how a tree is written as YAML.

In a tree a mapping is a list of pairs, so that it can hold a key twice, and ``Raw`` stands for YAML that no value is
written as: tags, anchors, merge keys.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

MARKER = "constructed"
"""Name of the file that appears if YAML is ever made to run code."""


class Raw(str):
    """Hold YAML that is written as it is."""


class Fields(list[tuple[Any, Any]]):
    """Hold a mapping as its pairs of key and value."""


_LAUGHS = "{l0: &l0 [x, x], " + ", ".join(f"l{i}: &l{i} [*l{i - 1}, *l{i - 1}]" for i in range(1, 40)) + ", z: *l39}"

RAW = st.sampled_from(
    [
        *(".nan", ".inf", "-.inf", "1e999", "-0.0", "1e-320", "0x1F", "0o17", "0xFFFFFFFFFFFFFFFFFF", "9" * 5000),
        *("!!str x", "! x", "!x y", "!!binary aGVsbG8=", "!!set {a, b}", "!!omap [a: 1]", "!!null ''", "!!int '3'"),
        f"!!python/object/apply:os.system ['touch {MARKER}']",
        f"!!python/object/apply:subprocess.check_output [[touch, {MARKER}]]",
        f"!!python/object/new:os.system ['touch {MARKER}']",
        "!!python/name:os.system x",
        "!!python/tuple [1, 2]",
        "!<tag:yaml.org,2002:python/object/apply:os.getcwd> []",
        *("&a [*a]", "&a x", "*a", "{<<: {steps: 1}}", "{<<: *a}", _LAUGHS, "{? [a]: b}", "{1: 2}", "{true: x}"),
        *("", "~", "2026-01-31", "12:30:45", "no", "=", "'", '"', "[", "{", "|", "> x", "%", "@x", "`x", "- x", "\t"),
        *('"\\ud800"', '"\\0"', '"\\e[31m"', '"\\n--set x: "', '"\\UFFFFFFFF"', '"\\x85\\u2028"', "\x00", "\x1b[31m"),
        *("[" * 40 + "]" * 40, "[" * 3000, "{a: " * 30 + "1" + "}" * 30, "[" * 25 + "1" + "]" * 25),
    ]
).map(Raw)

NUMBERS = (
    st.integers(-3, 70)
    | st.sampled_from([10**6, 2**31, 2**53, 2**63 - 1, -(2**63), 2**64, 10**30])
    | st.sampled_from([0.5, 1.5, -1.0, -0.0, 1e-7, 1e-320, 5e-324, 1e10, 1e300, 1.7976931348623157e308])
)

_PLAIN = """x . .. a/b ../x /etc/x ~ ~nobody/x [red]x[/red] [/] %s{0} a=b train-{0..9}.tar train-{0..999999999999}.tar
none all 0:1 1:0 999999:0 first-third norm qkv norm@all norm@0:3+norm(gate)@2:5 mlp(lora:8) qkv(lora:999999) none+norm
layerscale@all final_norm@0:1 lora:8 lora:0 gate jumbo copy placebo nano large registers:4 registers:0 attention_bias
scenes masks coco webdataset hugging_face dinov2 deit3_cpu mae_cpu knn linear median hyperband wilcoxon random_init
hf-hub:nobody/nothing vit_small_patch16_224.augreg_in21k x.safetensors model.scale objective.lr"""
_ODD = [
    *("", " ", "- x: y", "C:\\x", "a\nb", "a\rb", "\t", "\x00", "\x07", "\x1b]0;title\x07", "\x7f", "\x85", "\u2028"),
    *("\u202e\ufeff", "\ufffe", "\ud800", "\U0001f600", "é" * 99, "x" * 3000, "norm+" * 400 + "norm", "{" * 40),
]
TEXTS = st.sampled_from([*_PLAIN.split(), *_ODD]) | st.text(max_size=12)
"""Texts of which many mean something in some place, and others break something in many programs."""

SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS

_KEYS = """objective probes name question model data rungs seeds ablate vary floors pruning resources keep_weights
checkpoint_every_s checkpoint_max_share diagnostics source recipe pruner comparator scale patch_size image_size steps
epochs batch_size lr count num_images root protocol metric components blocks modes tokens comparators specialize knn
cpus processes high_norm checkpoint checkpoint_sha256 placebo_position model.scale model.patch_size objective.recipe
objective.lr data.source data.image_size probes.knn objective. .lr model.name path_fields __class__ <<"""
KEYS = st.sampled_from(_KEYS.split())
"""Keys that stand in sweep files, and some that look like them."""

VALUES = st.recursive(
    SCALARS | RAW,
    lambda inner: st.lists(inner, max_size=4)
    | st.lists(st.tuples(KEYS | TEXTS, inner), max_size=3).map(Fields),
    max_leaves=6,
)


def flow(tree: Any) -> str:
    """Write a tree as YAML in one line."""
    if isinstance(tree, Raw):
        return str(tree)
    if isinstance(tree, Fields):
        return "{" + ", ".join(f"{flow(key)}: {flow(value)}" for key, value in tree) + "}"
    if isinstance(tree, list):
        return "[" + ", ".join(map(flow, tree)) + "]"
    # JSON writes text so that YAML reads the same one, but for pairs of surrogates.
    is_wide = isinstance(tree, str) and any(ord(character) > 0xFFFF for character in tree)
    return json.dumps(tree, ensure_ascii=not is_wide)
