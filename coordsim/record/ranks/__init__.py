"""What real ranks write while they run: one crash-safe stream each, read back and merged into a trace.

The backend's recorder writes (:mod:`real_backend.recorder`); nothing here knows of torch, or of the backend.
"""

from __future__ import annotations

from coordsim.record.ranks.folder import read_folder, read_rank
from coordsim.record.ranks.merge import Merged, merge, merge_records
from coordsim.record.ranks.reader import RankRecord

__all__ = ["Merged", "RankRecord", "merge", "merge_records", "read_folder", "read_rank"]
