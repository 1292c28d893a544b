"""Pictures of a dataset: one PNG per row, written whole or not at all, that carries its own facts.

A picture lies at `<folder>/ab/ROWID.png`, `ab` being the first letters of the row id. Its text chunks hold
the row id and the render seconds, so that a picture whose row was lost needs no second render, besides the
workflow that ComfyUI puts in (a picture can be dropped into its window). The folder may be a path or any
URL that pyarrow or fsspec knows.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import uuid
import zlib
from dataclasses import dataclass
from pathlib import Path

import pyarrow.fs as pafs
from PIL import Image, PngImagePlugin

from flowtailor.errors import FlowtailorError

from ..datasets.store import filesystem_of

UNREADABLE = (OSError, SyntaxError, ValueError)  # what PIL says of damaged pictures
KEY = "flowtailor"  # of the PNG text chunk
_HEADER_END = 33  # signature and IHDR chunk
Image.MAX_IMAGE_PIXELS = None  # an engine of the user's own drew them, through two upscalers perhaps


class PictureUnreadable(FlowtailorError):
    """A picture that is damaged, or that is no longer there."""


@dataclass(frozen=True)
class Picture:
    """What a row tells about its picture; `path` is relative to the dataset's folder."""

    path: str
    seconds: float
    width: int
    height: int
    sha256: str  # of size and RGB pixels, so that the same picture in another file is the same


class Images:
    """The pictures below one folder or URL."""

    def __init__(self, url_or_path: str | Path) -> None:
        self._fs, base = filesystem_of(str(url_or_path))
        self._base = base.rstrip("/")
        self._name = self._base.rpartition("/")[2]

    def find(self, row_id: str) -> Picture | None:
        """The picture of a row if there is one that can be read."""
        file = self._file(row_id)
        if self._fs.get_file_info(file).type != pafs.FileType.File:
            return None
        with self._fs.open_input_stream(file) as stream:
            png = stream.read()
        try:
            return self._describe(row_id, png)
        except (*UNREADABLE, KeyError):  # damaged, or not one of ours: render it again
            return None

    def write(self, row_id: str, png: bytes, seconds: float) -> Picture:
        """Store a fresh render under its row id; the file appears whole. Raises PictureUnreadable."""
        png = with_text(png, KEY, json.dumps({"row_id": row_id, "seconds": seconds}))
        try:
            picture = self._describe(row_id, png)
        except UNREADABLE as error:
            raise PictureUnreadable(f"the engine sent a damaged PNG ({error}); draw it again") from error
        file = self._file(row_id)
        self._fs.create_dir(file.rpartition("/")[0], recursive=True)
        temporary = f"{file}.{uuid.uuid4().hex[:8]}.tmp"
        try:
            with self._fs.open_output_stream(temporary) as stream:
                stream.write(png)
            self._fs.move(temporary, file)
        except BaseException:
            if self._fs.get_file_info(temporary).type == pafs.FileType.File:
                self._fs.delete_file(temporary)
            raise
        return picture

    def _file(self, row_id: str) -> str:
        return f"{self._base}/{row_id[:2]}/{row_id}.png"

    def _describe(self, row_id: str, png: bytes) -> Picture:
        with Image.open(io.BytesIO(png)) as image:
            image.load()
            assert isinstance(image, PngImagePlugin.PngImageFile)
            facts = json.loads(image.text[KEY])
            path = f"{self._name}/{row_id[:2]}/{row_id}.png"
            return Picture(path, facts["seconds"], image.width, image.height, pixel_sha256(image))


def pixel_sha256(image: Image.Image) -> str:
    """Hash of what is seen: the size and the RGB pixels, not the file's bytes."""
    return hashlib.sha256(
        f"{image.width}x{image.height}".encode() + image.convert("RGB").tobytes()
    ).hexdigest()


def with_text(png: bytes, key: str, text: str) -> bytes:
    """The same PNG with one more text chunk (Latin-1, so ASCII JSON) after its header."""
    body = b"tEXt" + key.encode("latin-1") + b"\0" + text.encode("latin-1")
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return png[:_HEADER_END] + chunk + png[_HEADER_END:]
