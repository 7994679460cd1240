"""Lambda's REPORT of one invocation, from the log tail that Invoke returns: the text line, or the JSON record.

Forms: AWS documentation, "Monitoring for Lambda SnapStart" and "Lambda Telemetry API event schema" (platform.report).
"""

import json
import re

_FIELDS = {
    "duration_ms": ("Duration", "durationMs"),
    "billed_ms": ("Billed Duration", "billedDurationMs"),
    "memory_mb": ("Memory Size", "memorySizeMB"),
    "used_mb": ("Max Memory Used", "maxMemoryUsedMB"),
    "init_ms": ("Init Duration", "initDurationMs"),
    "restore_ms": ("Restore Duration", "restoreDurationMs"),
    "billed_restore_ms": ("Billed Restore Duration", "billedRestoreDurationMs"),
}


def parse_report(log: str) -> dict[str, float]:
    """The figures of the last report in a log tail; those that it does not name are absent. Empty without one."""
    for line in reversed(log.splitlines()):
        if line.startswith("REPORT"):
            named = dict(re.findall(r"(?:^|\t)([A-Z][A-Za-z ]+): ([0-9.]+) (?:ms|MB)", line))
            return {key: float(named[text]) for key, (text, _) in _FIELDS.items() if text in named}
        if '"platform.report"' in line:
            metrics = json.loads(line)["record"]["metrics"]
            return {key: float(metrics[name]) for key, (_, name) in _FIELDS.items() if name in metrics}
    return {}
