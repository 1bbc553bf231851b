"""Which interpreter stands for a container image here: RLAAS_IMAGES, a JSON object by image name.

    {"rlaas-learning": {"python": ".venv/bin/python", "cwd": "...", "env": {...}},
     "rlaas-vllm":     {"python": ".../bin/python", "cwd": "...", "serve": ["python", "containers/vllm/serve.py"]}}

`python` in a command becomes that interpreter; `serve` is the image's own command. An image is found by the last part
of its URI, without tag.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from local.emulator.sagemaker.errors import ApiError


@dataclass(frozen=True)
class Image:
    """A container image's stand-in."""

    python: str
    cwd: str
    serve: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)

    def command(self, words: Sequence[str]) -> list[str]:
        """`words` with this image's interpreter."""
        return [self.python if word in ("python", "python3") else word for word in words]


def image(uri: str) -> Image:
    """The stand-in of the image at `uri`.

    Raises: ApiError for an image RLAAS_IMAGES does not name.
    """
    name = uri.rpartition("/")[2].partition("@")[0].partition(":")[0]
    stand_ins = json.loads(os.environ.get("RLAAS_IMAGES", "{}"))
    if name not in stand_ins:
        raise ApiError("ValidationException", f"image {uri} has no stand-in on this machine; RLAAS_IMAGES names {sorted(stand_ins)}")
    entry = stand_ins[name]
    return Image(entry["python"], entry["cwd"], tuple(entry.get("serve", ())), entry.get("env", {}))
