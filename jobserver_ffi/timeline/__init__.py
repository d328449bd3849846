"""What happened in a build: slots in use, processes and the machine over time. Behind `jobserver run --timings`."""

from .analysis import Stretch, levels, serial_stretches, slot_seconds, utilisation
from .recording import Machine, Pressure, RecordedLease, RecordedProcess, Recording
from .trace import trace

__all__ = [
    "Machine",
    "Pressure",
    "RecordedLease",
    "RecordedProcess",
    "Recording",
    "Stretch",
    "levels",
    "serial_stretches",
    "slot_seconds",
    "trace",
    "utilisation",
]
