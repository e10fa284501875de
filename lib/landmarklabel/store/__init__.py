"""The label store: every submission is kept, and the study's files always show the newest one.

Reading order: ``bodies`` (a LandmarkSet as the JSON of a revision), ``revisions`` (append-only revisions in SQLite or
PostgreSQL), ``study`` (the folder: images, revisions, and ``labels/final`` as plain files).
Decision: the database is the truth and the files are a view of it that people may edit. Whoever writes a file holds
the study's lock and first takes in what a person changed there, so neither side ever overwrites the other unseen.
"""
