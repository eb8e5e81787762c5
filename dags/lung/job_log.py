"""A job's output in its task's log: each line at its record's level, without time and level.

A job prints `2026-11-23 10:00:00,000 WARNING a message`. Airflow's log has a time and a level of
its own for each entry and shows them before the message.
"""

from __future__ import annotations

import logging
import re
from typing import Any

from lung.visible_text import visible

# What jobs print before a message (`jobs/cli.py`).
RECORD = re.compile(r"[\d-]+ [\d:,]+ (DEBUG|INFO|WARNING|ERROR|CRITICAL) ")
TRACEBACK = "Traceback (most recent call last):"
LEVELS = logging.getLevelNamesMapping()
# Stands before the last line in a task's error.
LAST_LINE = ". Its last line: "


class JobLog:
    """Writes the lines of one job to the log of its task.

    A line that begins no record has the level of the record before it if it is indented, as the
    lines of a traceback are; otherwise it is a library's, at the level info. A traceback without a
    record, as an interpreter prints it, is an error up to the next record.

    Attributes:
        last_line: the last line that is not blank, without time, level and indentation.
    """

    def __init__(self, log: Any) -> None:
        self.last_line = ""
        self._log = log
        self._level = logging.INFO
        self._in_traceback = False

    def write(self, line: str) -> None:
        """Log one line of the job's output; a blank one is dropped."""
        if not line.strip():
            return
        if record := RECORD.match(line):
            self._level, self._in_traceback = LEVELS[record[1]], False
            line = line[record.end() :]
        elif line.rstrip().endswith(TRACEBACK):
            self._level = max(self._level, logging.ERROR)
            self._in_traceback = True
        elif not line[0].isspace() and not self._in_traceback:
            self._level = logging.INFO
        text = visible(line.rstrip())
        self.last_line = text.strip()
        self._log.log(self._level, "%s", text)
