"""Strict YAML: values, positions, refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.sweep.problems import SweepFileError
from orchestrator.sweep.yaml_reader import MAX_BYTES, parse_document, parse_value, read_document


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # The core schema of YAML 1.2.2, section 10.3.2, and where YAML 1.1 differs.
        ("1e-4", 1e-4),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("-1.", -1.0),
        ("+12", 12),
        ("0o17", 15),
        ("0x1F", 31),
        ("017", 17),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("12:30:45", "12:30:45"),
        ("0:3", "0:3"),
        ("2026-01-31", "2026-01-31"),
        ("true", True),
        ("FALSE", False),
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("y", "y"),
        ("null", None),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ('"\\t\\r\\n"', "\t\r\n"),
        ('"true"', "true"),
        ("=", "="),
        ("[0:3, first-third]", ["0:3", "first-third"]),
        ("{a: {b: [1, 2.5]}}", {"a": {"b": [1, 2.5]}}),
        ("norm@all+qkv@first-third", "norm@all+qkv@first-third"),
    ],
)
def test_parse_value_plain_yaml_follows_the_core_schema(text: str, value: object) -> None:
    parsed = parse_value(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (".nan", "finite"),
        ("-.inf", "finite"),
        ("1e999", "finite"),
        ("9223372036854775808", "64 bits"),
        ("9" * 5000, "64 bits"),
        ("0x" + "f" * 5000, "64 bits"),
        ("!!python/name:os.system x", "tags"),
        ("! x", "tags"),
        ("*x", "aliases"),
        ('"\\ud800"', "surrogate"),
        ('"\\0"', r"control character U\+0000"),
        ('"\\e[31m"', r"control character U\+001B"),
        ('"\\x9b"', r"control character U\+009B"),
        ('{"\\a": 1}', r"control character U\+0007"),
        ('"\\UFFFFFFFF"', "not valid YAML"),
        ("[1", "not valid YAML"),
        ("a: 1\na: 2", "duplicate"),
    ],
)
def test_parse_value_refused_yaml_says_why(text: str, words: str) -> None:
    with pytest.raises(SweepFileError, match=words):
        parse_value(text)


def test_parse_document_positions_are_lines_of_keys_and_items() -> None:
    text = "# comment\na: 1\nb:\n  c:\n  - x\n  -\n    y: 2\n  d: [1,\n    2]\n"
    lines = parse_document(text, name="f").lines
    assert lines == {
        ("a",): 2,
        ("b",): 3,
        ("b", "c"): 4,
        ("b", "c", 0): 5,
        ("b", "c", 1): 7,  # the item begins where its first key stands
        ("b", "c", 1, "y"): 7,
        ("b", "d"): 8,
        ("b", "d", 0): 8,
        ("b", "d", 1): 9,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "f:1: the file is empty"),
        ("# only a comment\n", "f:1: the file is empty"),
        ("- a\n- b\n", "f:1: the top level must be a mapping"),
        ("\n\njust text\n", "f:3: the top level must be a mapping"),
        ("a: 1\nb: 2\na: 3\n", "f:3: a: duplicate key, given in line 1 already"),
        ("a:\n  x: 1\n  x: 1\n", "f:3: a.x: duplicate key, given in line 2 already"),
        ("a: 1\n'a': 3\n", "f:2: a: duplicate key"),
        ("1: x\n", "f:1: 1: a key must be text, not 1"),
        ("true: x\n", "f:1: true: a key must be text, not true"),
        ("? [a]\n: x\n", "a key must be text, not a list or a mapping"),
        ("a: 1\n<<: {b: 2}\n", "f:2: <<: merge keys are not supported"),
        ("a: &x 1\nb: *x\n", "f:2:4: aliases (*x) are not supported"),
        ("a: 1\nb: !!binary aa\n", "f:2:4: tags (tag:yaml.org,2002:binary) are not supported"),
        ("a: 1\n---\nb: 1\n", "f:2:1: not valid YAML: one file holds one document"),
        ("a:\n\t- b\n", "f:2:1: not valid YAML: a tab where YAML wants spaces"),
        ("a: b: c\n", "f:1:5: not valid YAML: a second ': ' in one line"),
        ("a: 1\nb: 'x\n", "f:3:1: not valid YAML: while scanning a quoted scalar"),
        ("a: 1\nb: \x00\n", "f:2: character U+0000 is not allowed"),
        ("a: [1, .inf, .nan]\n", "f:1: a[1]: must be a finite number, not .inf\nf:1: a[2]"),
        ("a: " + "[" * 500, "nested more than 32 levels deep"),
        ("a:\n" + "".join(" " * i + "b:\n" for i in range(1, 400)), "nested more than 32 levels deep"),
    ],
)
def test_parse_document_malformed_names_the_line(text: str, message: str) -> None:
    with pytest.raises(SweepFileError) as caught:
        parse_document(text, name="f")
    assert message in str(caught.value)


def test_parse_document_several_problems_lists_each_in_order() -> None:
    with pytest.raises(SweepFileError) as caught:
        parse_document("a: .nan\nb: 1\nb: 2\n3: x\n", name="f")
    assert [line.split(" ")[0] for line in str(caught.value).splitlines()] == ["f:1:", "f:3:", "f:4:"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a: 1\nb: \xff\n", ":2: must be UTF-8; byte 0xff is not"),
        ("a: 1\n".encode("utf-16"), ":1: must be saved as UTF-8, not UTF-16"),
        (b"#" * (MAX_BYTES + 1), "must be at most 1048576 bytes"),
    ],
)
def test_read_document_wrong_bytes_names_the_file(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(data)
    with pytest.raises(SweepFileError) as caught:
        read_document(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


def test_read_document_bom_and_crlf_reads_as_without(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: [x]\r\n")
    document = read_document(path)
    assert document.value == {"a": 1, "b": ["x"]}
    assert document.lines["b", 0] == 2


@pytest.mark.parametrize("name", ["absent.yaml", "."])
def test_read_document_no_file_names_it(tmp_path: Path, name: str) -> None:
    with pytest.raises(SweepFileError, match=r"no such file|cannot be read"):
        read_document(tmp_path / name)
