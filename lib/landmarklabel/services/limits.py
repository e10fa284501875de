"""What a server takes from its clients, and its times."""

from __future__ import annotations

from dataclasses import dataclass

from landmarklabel.configuration import Configuration, number


@dataclass(frozen=True)
class ServerLimits(Configuration):
    """What a server takes from its clients, and its times."""

    pause_s: float = number(60.0, 0)  # without a byte of a body, after which a connection is closed
    health_s: float = number(0.8, 0)  # that the disk may take to answer
    note_bytes: int = number(64 * 2**10, 0)  # noted of an image
    note_depth: int = number(8, 0)  # of such a note
    waiting_trainings: int = number(100, 0)
    training_niceness: int = number(5, 0)  # requests come first, and on a busy machine a training still goes on
    ended_servers: int = number(10, 0)  # during one training: it may be what they died of
    look_s: float = number(0.5, 0)  # between two looks for the server, the study, or the end of another's training
    orphan_s: float = number(10.0, 0)  # that a training has to end by itself after its server
    verify_s: float = number(0.5, 0)  # that a list of images may take to look at changed ones
    finish_s: int = number(4, 0)  # that requests have to end by themselves after a signal
    end_s: float = number(7.0, 0)  # after which the process ends whatever it does: a network pass in a thread cannot be stopped
    switch_s: float = number(0.001, 0)  # a thread that computes gives way to the event loop so soon; Python's own 0.005 add up
    near_mm: float = number(2.0, 0)  # of a proposal that needs no click; in the unit of the study
    status_s: float = number(5.0, 0)  # within which everybody is shown the status page that was made for the first
    page_cases: int = number(50, 0)  # on a page
    cases_drawn: int = number(300, 1)  # over one another in shape space; more hide one another
    requests_at_once: int = number(8, 0)  # computed for in threads
    block_bytes: int = number(2**20, 0)  # read at a time
    backup_rounds: int = number(5, 1)  # a backup looks for changed files so often; one that always changes would never end
    name_bytes: int = number(200, 0)  # of a sent file's name, which a session keeps
    text_characters: int = number(200, 0)  # of a text
    samples_sent: int = number(2**25, 1)  # of a volume in one answer: 64 MiB
    picture_samples: int = number(2**24, 1)  # of a 2D image in one picture: 64 MiB in a browser; Safari on tablets draws no more
    screen_copies_bytes: int = number(8 * 2**30, 0)  # of volumes and large images as screens show them, on the study's disk
    login_s: int = number(12 * 3600, 60)  # that a login of a browser lasts: a working day
    edits: int = number(10**9, 1)  # that a draft says it holds
    drafts: int = number(2000, 1)  # of one person in a study
    draft_s: int = number(90 * 24 * 3600, 3600)  # that a draft is kept which nobody has gone on with
    session_s: int = number(3600, 60)  # that an uploaded image which belongs to no study is kept
    cleanup_s: float = number(300.0, 1)  # between two looks for expired sessions
    remembered_tasks: int = number(1000, 1)  # trainings and batches that clients can ask about
    remembered_lines: int = number(20, 1)  # of what such a task has printed
    json_depth: int = number(32, 0)  # of a JSON value


LIMITS = ServerLimits()
