from .errors import *
from ._bus import Bus
from ._events import Event, Origin, Stop
from ._handle import Handle, Subscription
from ._registry import Draft, Entry, Kind, Registry
from ._plugin import Manifest, Plugin, as_plugin
