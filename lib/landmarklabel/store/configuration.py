"""Times and limits of the store."""

from __future__ import annotations

from dataclasses import dataclass

from landmarklabel.configuration import Configuration, number


@dataclass(frozen=True)
class StoreConfig(Configuration):
    """Times and limits of the store."""

    busy_s: int = number(10, 0)  # how long a writer waits for its turn, and anybody for a connection
    quiet_ns: int = number(2_000_000_000, 0)  # after which an editor has ended writing a file that was replaced
    kept_ns: int = number(10_000_000_000, 0)  # for so long an editor may still begin to write it
    write_tries: int = number(5, 0)  # against writers on another machine, who do not hold this machine's lock
    lease_s: float = number(30 * 60.0, 0)  # after which a case that was not submitted is free again
    min_cases_each: int = number(4, 0)  # that one computer may always hold: people behind a proxy share an address
    share_divisor: int = number(2, 0)  # of the open cases one computer may hold one part in so many
    settled_ns: int = number(2_000_000_000, 0)  # after which the time of a change tells every later change
    text_characters: int = number(200, 0)  # of an author, source or key
    revision_number: int = number(2**31 - 1, 0)  # the largest that PostgreSQL's integer holds
    lock_s: float = number(10.0, 0)  # that a writer waits for others; a save takes some 20 ms
    verify_s: float = number(0.2, 0)  # that a list of labels may take to look at changed images; the rest follows the next time
    quick_s: float = number(0.2, 0)  # a look at the images that took longer …
    rest_factor: float = number(20.0, 0)  # … is followed by a pause of so many times its length
    named: int = number(6, 0)  # names in a message


CONFIG = StoreConfig()
