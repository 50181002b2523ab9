"""EdgeKD: from images and masks to a distilled segmentation student in a verified engine on the device."""

__version__ = "0.1.0"
