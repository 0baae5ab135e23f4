"""What was ever on the wire is read for ever, with the same meaning; in other languages too."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import golden_cases as golden
import msgpack
import pytest

from fusionnode.client import decode
from fusionnode.client.signature import signed_bytes
from fusionnode.core import schema

NAMES = sorted(path.stem for path in golden.FOLDER.glob("*.messages"))
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
SHA256 = {
    "v1_own": "cc0f87d2d576a3169528d525d669cbb1918d3da9bbdb4025fd1f6b16766fc6d0",
    "v1_group": "672e2883799c7519769dbb97f32cfae84e58dbcfece59a064d74cd3fb77a7b81",
}


def test_none_of_the_files_was_made_anew():
    files = {name: (golden.FOLDER / f"{name}.messages").read_bytes() for name in NAMES}
    assert {name: hashlib.sha256(data).hexdigest() for name, data in files.items()} == SHA256


@pytest.mark.parametrize("name", NAMES)
def test_each_message_means_what_it_meant(name):
    for message, expected in zip(golden.read(name), golden.expected(name), strict=True):
        assert json.loads(json.dumps(golden.meaning(*message))) == expected


@pytest.mark.parametrize("name", NAMES)
def test_what_a_later_node_adds_changes_nothing(name):
    for (topic, payload), expected in zip(golden.read(name), golden.expected(name), strict=True):
        body = msgpack.unpackb(payload)
        if body["type"] in (schema.TYPE_SENSOR, "later"):
            continue  # may have further keys anyway, and shows them
        later = {"aLaterKey": {"x": [1, None, b"y"]}, **body, "z": body.get("z", 1.5)}
        assert json.loads(json.dumps(golden.meaning(topic, msgpack.packb(later)))) == expected


def test_signatures_are_those_of_the_documents_key():
    pytest.importorskip("cryptography")
    from fusionnode.client.signature import Signer

    hello = next(one for one in golden.expected("v1_group") if one["type"] == "hello")
    verify = Signer(hello["fields"]["signingKey"]).verify
    signed = 0
    for topic, payload in golden.read("v1_group"):
        if topic and signed_bytes(payload) is not None:
            decode.live(topic, payload, verify)
            signed += 1
        elif topic:
            with pytest.raises(decode.Refused, match="unsigned"):
                decode.live(topic, payload, verify)
    assert signed == 9


def lines_of(*command):
    found = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True, timeout=60)
    return [json.loads(line) for line in found.stdout.splitlines()]


def as_any_reader_sees_them(name):
    return [[topic.decode(), golden.as_json(payload)] for topic, payload in golden.read(name)]


@pytest.fixture(scope="module")
def c_reader(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler is here")
    program = tmp_path_factory.mktemp("c") / "read_messages"
    warnings = ["-std=c99", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler, *warnings, EXAMPLES / "read_messages.c", "-o", program], check=True, timeout=60)
    return program


@pytest.mark.parametrize("name", NAMES)
def test_the_example_in_c_reads_them(c_reader, name):
    assert lines_of(c_reader, golden.FOLDER / f"{name}.messages") == as_any_reader_sees_them(name)


@pytest.mark.parametrize("name", NAMES)
def test_the_example_in_javascript_reads_them(name):
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node.js is here")
    command = (node, EXAMPLES / "read_messages.js", golden.FOLDER / f"{name}.messages")
    assert lines_of(*command) == as_any_reader_sees_them(name)


def test_a_file_that_is_cut_off_is_told(c_reader, tmp_path):
    data = (golden.FOLDER / "v1_own.messages").read_bytes()
    for n in range(1, 300, 7):
        (tmp_path / "cut").write_bytes(data[:n])
        command = [c_reader, tmp_path / "cut"]
        assert subprocess.run(command, capture_output=True, check=False, timeout=60).returncode in (0, 1)


def test_the_document_names_all_that_the_schema_does():
    text = (EXAMPLES.parent / "WIRE.md").read_text(encoding="utf-8")
    prefixes = ("TYPE_", "ERROR_", "FEATURE_", "REASON_", "EVENT_")
    words = [value for name, value in vars(schema).items() if name.startswith(prefixes)]
    words += [*schema.CUE_STATES, *schema.STATUSES, *schema.ReleasedState.__annotations__]
    words += [*decode._REPLIES[schema.TYPE_HELLO], *decode._REPLIES[schema.TYPE_HISTORY]]
    words += [*decode._REPLIES[schema.TYPE_PACED], *decode._REPLIES[schema.TYPE_CUE_REPLY]]
    assert [word for word in words if f"`{word}`" not in text] == []
