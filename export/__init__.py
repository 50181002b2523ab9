"""From a bundle to the graphs and engines of its targets."""

from edgekd.export.api import export_bundle
from edgekd.export.tensorrt_options import TensorRtOptions

__all__ = ["TensorRtOptions", "export_bundle"]
