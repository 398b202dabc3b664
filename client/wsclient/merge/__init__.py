"""Merging wallets: what two devices changed at the same time, put together. Pure.

`JsonMerge`, `TextMerge`, `append_log` and `last_writer_wins` are each a `Merge`.
"""

from wsclient.merge.append_log import append_log, append_segment, merge_append_logs
from wsclient.merge.json_document import ABSENT
from wsclient.merge.json_merge import (
    JsonConflict,
    JsonMerge,
    keep_greatest,
    keep_mine,
    keep_newest,
    keep_theirs,
)
from wsclient.merge.text import TextConflict, TextMerge, keep_both, merge_text
from wsclient.merge.three_way import Merge, last_writer_wins

__all__ = [
    "ABSENT",
    "JsonConflict",
    "JsonMerge",
    "Merge",
    "TextConflict",
    "TextMerge",
    "append_log",
    "append_segment",
    "keep_both",
    "keep_greatest",
    "keep_mine",
    "keep_newest",
    "keep_theirs",
    "last_writer_wins",
    "merge_append_logs",
    "merge_text",
]
