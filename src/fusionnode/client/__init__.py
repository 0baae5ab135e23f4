"""What a subscriber installs: needs only pyzmq and msgpack.

from fusionnode.client import State, Subscriber

with Subscriber("tcp://127.0.0.1:5600", "tcp://127.0.0.1:5601") as subscriber:
    for event in subscriber:
        if isinstance(event, State):
            print(event.state["trackId"], event.state["xpos"])

A release group of a node in another house, with keys, and going on where it stood when it was last run:

with Subscriber(
    "tcp://station.example:5610",
    "tcp://station.example:5611",
    server_key="group-allies.public",
    secret_key_file="centre.secret",
    resume_file="allies.position",
) as subscriber:
    ...

In asyncio: ``async for event in subscriber``.
"""

from fusionnode.client.events import (
    CueReply,
    EpochChange,
    Event,
    Filled,
    Gap,
    Heartbeat,
    ObjectEvent,
    Refused,
    SensorState,
    Stale,
    State,
    Synced,
    Tombstone,
)
from fusionnode.client.resume import Position
from fusionnode.client.subscriber import Subscriber
from fusionnode.core.schema import ObjectState

__all__ = [
    "CueReply",
    "EpochChange",
    "Event",
    "Filled",
    "Gap",
    "Heartbeat",
    "ObjectEvent",
    "ObjectState",
    "Position",
    "Refused",
    "SensorState",
    "Stale",
    "State",
    "Subscriber",
    "Synced",
    "Tombstone",
]
