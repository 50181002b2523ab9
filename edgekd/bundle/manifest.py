"""The manifest of a bundle.

History of the schema:
    1  the first: preprocess, classes, model, files, metrics, training, environment.

A change that an older program would misread raises SCHEMA_VERSION and adds a line here.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from edgekd.bundle.files import FileFact, FileName
from edgekd.specs import ClassSpec, ModelSpec, PreprocessSpec, Spec

SCHEMA_VERSION = 1
MANIFEST_FILE = "manifest.json"
WEIGHTS_FILE = "student.safetensors"


class Manifest(Spec):
    """What a bundle is; written once and never changed.

    Attributes:
        schema_version: SCHEMA_VERSION of the program that wrote it.
        name: what the student is called.
        created: UTC time, ISO 8601.
        edgekd_version: version of the program that wrote it.
        preprocess: how a frame becomes the tensor.
        classes: the meaning of the mask's ids.
        model: the network and its size.
        files: sha256 and size of every file but the manifest itself and what lies in ``builds/``.
        metrics: scores of the student (0 to 1; None where undefined), by data split.
        training: resolved configuration, seeds, hashes of the data.
        environment: versions of the libraries and the machine that trained it.
    """

    schema_version: Annotated[int, Field(ge=1, le=SCHEMA_VERSION)]
    name: Annotated[str, Field(min_length=1)]
    created: str
    edgekd_version: str
    preprocess: PreprocessSpec
    classes: ClassSpec
    model: ModelSpec
    files: dict[FileName, FileFact]
    metrics: dict[str, Any]
    training: dict[str, Any]
    environment: dict[str, Any]

    @model_validator(mode="after")
    def _check_agreement(self) -> Manifest:
        if self.model.num_classes != self.classes.count:
            raise ValueError(
                f"the model has {self.model.num_classes} classes, {self.classes.count} are named"
            )
        if self.model.in_channels != self.preprocess.channels:
            raise ValueError(
                f"the model reads {self.model.in_channels} channels, "
                f"preprocessing gives {self.preprocess.channels}"
            )
        return self
