"""Teacher and student networks, one catalogue."""

from edgekd.models.catalogue import (
    CATALOGUE,
    DEFAULT_STUDENT,
    DEFAULT_TEACHER,
    Entry,
    build_model,
    check_image_size,
    find_size_multiple,
    list_taps,
    resolve_options,
)
from edgekd.models.count import (
    NetworkFacts,
    check_learns_from_one,
    check_network,
    count_model,
    describe_catalogue,
)

__all__ = [
    "CATALOGUE",
    "DEFAULT_STUDENT",
    "DEFAULT_TEACHER",
    "Entry",
    "NetworkFacts",
    "build_model",
    "check_image_size",
    "check_learns_from_one",
    "check_network",
    "count_model",
    "describe_catalogue",
    "find_size_multiple",
    "list_taps",
    "resolve_options",
]
