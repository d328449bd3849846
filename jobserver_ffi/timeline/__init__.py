"""What happened in a build: slots in use, processes and the machine over time. Behind `jobserver run --timings`."""

from .recording import Machine, Pressure, RecordedLease, RecordedProcess, Recording

__all__ = ["Machine", "Pressure", "RecordedLease", "RecordedProcess", "Recording"]
