"""Running a bundle on a device: one engine a file, all behind one segmenter. Never torch.

Importing this package loads no engine; `load` imports the one that is asked for.
"""

from edgekd.runtime.base import STAGES, Engine, LoadRequest, Segmenter
from edgekd.runtime.catalogue import ENGINES, Entry, find_obstacle, list_runnable, load
from edgekd.runtime.ring import MaskRing

__all__ = [
    "ENGINES",
    "STAGES",
    "Engine",
    "Entry",
    "LoadRequest",
    "MaskRing",
    "Segmenter",
    "find_obstacle",
    "list_runnable",
    "load",
]
