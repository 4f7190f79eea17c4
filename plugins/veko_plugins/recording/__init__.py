"""Recordings: the last emissions and requests of an application, replays of them, and bisection."""

from .bisect import bisect_recording
from .config import RecordingConfig
from .control import Answer, ask_running
from .culprits import Culprits, SearchError, find_culprits
from .entries import Failure
from .files import Recording, RecordingError, read_recording
from .plugin import Recorder, folder_of
from .pytest_file import name_of_test, test_file
from .replay import Clients, Difference, Replay, Report, label_of
from .reproducing import Reproduction, reproduce
from .setup import Hosted, set_up
from .values import recorded_value

__all__ = [
    "Answer", "Clients", "Culprits", "Difference", "Failure", "Hosted", "Recorder", "Recording",
    "RecordingConfig", "RecordingError", "Replay", "Report", "Reproduction", "SearchError",
    "ask_running", "bisect_recording", "find_culprits", "folder_of", "label_of", "name_of_test",
    "read_recording", "recorded_value", "reproduce", "set_up", "test_file",
]  # fmt: skip
