"""Files of golden messages: rows of (topic, payload), each with two lengths in front (docs/WIRE.md, "Versions")."""

import json
import struct
from pathlib import Path

import msgpack

from fusionnode.client import decode
from fusionnode.client.decode import Refused
from fusionnode.core.schema import TYPE_PACED

FOLDER = Path(__file__).parent / "golden"
_LENGTHS = struct.Struct("<II")


def read(name):
    data, at, messages = (FOLDER / f"{name}.messages").read_bytes(), 0, []
    while at < len(data):
        t, p = _LENGTHS.unpack_from(data, at)
        at += _LENGTHS.size
        messages.append((data[at : at + t], data[at + t : at + t + p]))
        at += t + p
    assert at == len(data)
    return messages


def write(name, messages):
    """Only ever for a new file: those that are there stay as they are."""
    path = FOLDER / f"{name}.messages"
    assert not path.exists(), "golden messages are never made anew"
    path.write_bytes(b"".join(_LENGTHS.pack(len(t), len(p)) + t + p for t, p in messages))
    means = [meaning(*message) for message in messages]
    (FOLDER / f"{name}.json").write_text(
        json.dumps(means, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def meaning(topic, payload):
    """What the client makes of a message, as JSON has it. Replies have no topic."""
    if topic:
        return plain(decode.live(topic, payload))
    reply = decode.reply(payload)
    fields = dict(reply.fields)
    if reply.type == TYPE_PACED:
        content = decode.paced_content(fields.pop("z"))
        items = decode.mixed(content, fields["streamEpoch"])
        fields["items"] = [str(item) if isinstance(item, Refused) else plain(item) for item in items]
    return {"type": reply.type, "id": reply.id, "fields": fields}


def plain(message):
    return {
        "type": message.type,
        "streamEpoch": message.stream_epoch,
        "seq": message.seq,
        "body": message.body,
    }


def expected(name):
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def as_json(payload):
    """A payload as any msgpack reader sees it, binary as hexadecimal."""
    return json.loads(json.dumps(msgpack.unpackb(payload), default=bytes.hex))
