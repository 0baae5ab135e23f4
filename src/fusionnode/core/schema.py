"""The names and numbers of the subscribers' wire, shared by the node's encoder and the client's decoder.

Standard library only: the client installs without numpy. The meaning of each field is in docs/WIRE.md.
"""

from __future__ import annotations

from typing import TypedDict

SCHEMA_VERSION = 1

TOPIC_STATE = b"state."  # + trackId: one ObjectState
TOPIC_TOMBSTONE = b"tombstone."  # + trackId: the track ended, was merged, or was split
TOPIC_EVENT = b"event."  # + kind + "." + trackId: something happened to a track
TOPIC_SENSOR = b"sensor."  # + sensor name: rate, latency, outcomes
TOPIC_HEARTBEAT = b"heartbeat"

TYPE_STATE = "state"
TYPE_TOMBSTONE = "tombstone"
TYPE_EVENT = "event"
TYPE_SENSOR = "sensor"
TYPE_HEARTBEAT = "heartbeat"
TYPE_SNAPSHOT_REQUEST = "snapshot_request"
TYPE_SNAPSHOT = "snapshot"
TYPE_ERROR = "error"
TYPE_HELLO_REQUEST = "hello_request"
TYPE_HELLO = "hello"
TYPE_HISTORY_REQUEST = "history_request"
TYPE_HISTORY = "history"
TYPE_PACED_REQUEST = "paced_request"
TYPE_PACED = "paced"
TYPE_PACED_ACK = "paced_ack"
TYPE_CUE_REQUEST = "cue_request"
TYPE_CUE_REPLY = "cue_reply"

TOPICS = {
    TYPE_STATE: TOPIC_STATE,
    TYPE_TOMBSTONE: TOPIC_TOMBSTONE,
    TYPE_EVENT: TOPIC_EVENT,
    TYPE_SENSOR: TOPIC_SENSOR,
    TYPE_HEARTBEAT: TOPIC_HEARTBEAT,
}
"""Topic prefix of each type of live message."""

HEARTBEAT_DETAILS = ("group", "intervalS", "links", "unknownSensors")
"""What a heartbeat may say besides its fields."""

REASON_DROPPED = "dropped"
REASON_MERGED = "merged"
REASON_SPLIT = "split"  # reserved: the tracker does not split tracks yet
REASON_NODE_STOPPED = "node_stopped"
REASON_WITHDRAWN = "withdrawn"  # the track goes on, but is no longer released to this group

ERROR_NOTHING_YET = "nothing yet"
ERROR_NOT_KEPT = "not_kept"
ERROR_NOT_ALLOWED = "not_allowed"
ERROR_BUSY = "busy"
ERROR_UNKNOWN_REQUEST = "unknown type of request"

FEATURE_SNAPSHOT = "snapshot"
FEATURE_HISTORY = "history"
FEATURE_SPOOL = "spool"
FEATURE_PACED = "paced"
FEATURE_COMPACT = "compact"
FEATURE_CUE = "cue"
FEATURE_SIGNED = "signed"

CUE_STATES = ("accepted", "refused", "sent", "acknowledged", "failed", "expired")
CUE_LAST_STATES = ("refused", "acknowledged", "failed", "expired")
"""After one of these no further reply comes."""

EVENT_MANOEUVRE = "manoeuvre"
EVENT_NEW_OBJECT_NEAR = "new_object_near"
EVENT_BREAKUP = "breakup"
EVENT_DECAY = "decay"
EVENT_REENTRY = "reentry"
EVENTS = (EVENT_MANOEUVRE, EVENT_NEW_OBJECT_NEAR, EVENT_BREAKUP, EVENT_DECAY, EVENT_REENTRY)
"""Kinds of events; others may be added."""

STATUSES = ("tentative", "confirmed", "coasting")

MAX_MESSAGE_BYTES = 65_536
"""No payload and no part of a snapshot is longer; a subscriber may refuse what is."""

MAX_REQUEST_BYTES = 1_024
"""No request is longer."""

MAX_SUBSCRIPTION_BYTES = 256
"""No subscription is longer."""

MAX_HISTORY_REPLY_BYTES = 1_048_576
"""All parts of one reply of history, and what one paced message unpacks to, are not longer than this together."""

PACED_RENEWAL_S = 10.0
"""A paced subscriber renews its request this often."""

PACED_LAPSE_S = 30.0
"""A node forgets a paced subscriber whose request was not renewed for so long."""

SIGNATURE_KEY = "sig"
SIGNATURE_BYTES = 64
SIGNATURE_TAIL = b"\xa3sig\xc4\x40"
"""How the last entry of a signed message begins: the key, and the head of 64 bytes of binary."""


class Envelope(TypedDict):
    """First four keys of every live message."""

    v: int
    type: str
    streamEpoch: str
    seq: int


class ObjectState(TypedDict):
    """One track at one moment: UDL StateVector names; km and km/s; keys in the order of the wire.

    What a release group's policy withholds is None, of ``sensors`` empty, and ``idOnOrbit`` is then the track's id.
    """

    trackId: str
    epoch: str
    referenceFrame: str
    xpos: float
    ypos: float
    zpos: float
    xvel: float
    yvel: float
    zvel: float
    cov: list[float]
    covReferenceFrame: str
    status: str
    uct: bool | None
    satNo: int | None
    idOnOrbit: str
    name: str | None
    objectProbability: float | None
    sensors: list[str]
    lastObEnd: str | None
    nis: float | None
    dof: int | None
    updates: int | None
    existence: float | None
    classificationMarking: str
    dataMode: str
    source: str


class ReleasedState(ObjectState, total=False):
    """What a state of a release group's stream has besides."""

    provenance: list[str]
    releasableTo: list[str]
