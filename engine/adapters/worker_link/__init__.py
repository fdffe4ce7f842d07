"""The link between the core process and one ingress worker: a pair of connected sockets that nobody else can reach."""

from engine.adapters.worker_link.core_end import CoreEnd, Front
from engine.adapters.worker_link.counts import take_counts
from engine.adapters.worker_link.door import Entrance, Way, listening_sockets, take_connections
from engine.adapters.worker_link.frames import LinkBroken, read_first
from engine.adapters.worker_link.messages import Callers, Drain, Hello, hello_of
from engine.adapters.worker_link.remote_intake import RemoteIntake

__all__ = [
    "Callers",
    "CoreEnd",
    "Drain",
    "Entrance",
    "Front",
    "Hello",
    "LinkBroken",
    "RemoteIntake",
    "Way",
    "hello_of",
    "listening_sockets",
    "read_first",
    "take_connections",
    "take_counts",
]
