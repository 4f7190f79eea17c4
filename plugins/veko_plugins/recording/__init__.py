"""Recordings: the last emissions and requests of an application, replays of them, and bisection."""

from .control import Answer, ask_running
from .entries import Failure
from .files import Recording, RecordingError, read_recording
from .plugin import Recorder

__all__ = [
    "Answer",
    "Failure",
    "Recorder",
    "Recording",
    "RecordingError",
    "ask_running",
    "read_recording",
]
