"""What SnapStart adds to the bill of a function in an image: one sum for `tools.cost` and for the break-even point.

AWS charges for the snapshot of a published version as long as the version lives (three hours at least), for each
restore by the GB, and for the time that code runs: the initialisation, when the version is published, and of a restore
what loads the runtime and runs the hooks, `Billed Restore Duration` in the log's REPORT line. The reading of the
snapshot itself is not billed by time [AWS documentation, "SnapStart pricing" and "Monitoring for Lambda SnapStart"].
"""


def snapstart(
    gb: float,
    *,
    versions: int,
    cached_s: float,
    init_s: float,
    restores: float,
    restore_s: float,
    usd_run: float,
    usd_cached: float,
    usd_restored: float,
) -> float:
    """US dollars for versions that are each initialised once and cached for `cached_s`, and for restores of them.

    `restore_s` is what is billed of one restore. Prices are per GB-second of running and of caching, and per GB.
    """
    version = init_s * usd_run + cached_s * usd_cached
    restore = restore_s * usd_run + usd_restored
    return gb * (versions * version + restores * restore)
