"""What a subscriber installs: needs only pyzmq and msgpack.

from fusionnode.client import State, Subscriber

with Subscriber("tcp://127.0.0.1:5600", "tcp://127.0.0.1:5601") as subscriber:
    for event in subscriber:
        if isinstance(event, State):
            print(event.state["trackId"], event.state["xpos"])
"""

from fusionnode.client.events import (
    EpochChange,
    Event,
    Gap,
    Heartbeat,
    ObjectEvent,
    SensorState,
    Stale,
    State,
    Synced,
    Tombstone,
)
from fusionnode.client.subscriber import Subscriber
from fusionnode.core.schema import ObjectState

__all__ = [
    "EpochChange",
    "Event",
    "Gap",
    "Heartbeat",
    "ObjectEvent",
    "ObjectState",
    "SensorState",
    "Stale",
    "State",
    "Subscriber",
    "Synced",
    "Tombstone",
]
