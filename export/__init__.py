"""From a bundle to the graphs and engines of its targets."""

from edgekd.export.api import export_bundle

__all__ = ["export_bundle"]
