"""Times and limits of the store."""

from __future__ import annotations

from dataclasses import dataclass

from landmarklabel.configuration import Configuration, number


@dataclass(frozen=True)
class StoreConfig(Configuration):
    """Times and limits of the store."""

    database_timeout_s: int = number(10, 0)  # how long a writer waits for its turn, and anybody for a connection
    editor_idle_ns: int = number(2_000_000_000, 0)  # an editor that has not written for so long has finished with a replaced file
    replaced_kept_ns: int = number(10_000_000_000, 0)  # a replaced file is kept so long for an editor that holds it
    sqlite_path_bytes: int = number(504, 1)  # SQLite's own limit is 512 (unixMaxPathname), less its "-journal"
    write_tries: int = number(5, 0)  # against writers on another machine, who do not hold this machine's lock
    lease_s: float = number(30 * 60.0, 0)  # after which a case that was not submitted is free again
    min_cases_each: int = number(4, 0)  # cases that one computer may always hold: people behind a proxy share an address
    share_divisor: int = number(2, 0)  # one computer may hold this fraction (1/n) of the open cases
    mtime_settled_ns: int = number(2_000_000_000, 0)  # a file older than this cannot change without a new time
    text_characters: int = number(200, 0)  # of an author, source or key
    revision_number: int = number(2**31 - 1, 0)  # PostgreSQL's largest integer
    lock_timeout_s: float = number(10.0, 0)  # how long a writer waits for others; a save takes some 20 ms
    verify_s: float = number(0.2, 0)  # a list of labels spends so long on changed images; the rest follows the next time
    quick_scan_s: float = number(0.2, 0)  # a scan of the images that took longer …
    rest_factor: float = number(20.0, 0)  # … is followed by a pause of so many times its length
    max_token_days: float = number(3660.0, 1)  # after which a token expires at the latest, where it is to expire
    max_listed_names: int = number(6, 0)  # names listed in a message


CONFIG = StoreConfig()
