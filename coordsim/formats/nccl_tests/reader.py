"""Reads nccl-tests: what it prints, or the JSON that it writes."""

from __future__ import annotations

from collections.abc import Sequence

from coordsim.formats.imported import Imported
from coordsim.formats.nccl_tests.json_report import read_json
from coordsim.formats.nccl_tests.text import read_text
from coordsim.formats.shared.benchmark_table import TableFile
from coordsim.formats.shared.cluster_fragment import import_files
from coordsim.formats.shared.small_files import first_bytes
from coordsim.formats.shared.sources import SourcePath

_HEAD = 256


def import_tables(paths: Sequence[SourcePath]) -> Imported:
    """Return the tables in ``paths``. Raises InputError as :func:`read_nccl` does, if no file has a table."""
    return import_files(paths, "nccl-tests", read_nccl)


def read_nccl(path: SourcePath) -> TableFile:
    """Return the tables in ``path``. Raises InputError, with file and place, if there is none or a row is invalid."""
    if first_bytes(path, _HEAD).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{":
        return TableFile(read_json(path))
    return read_text(path)
