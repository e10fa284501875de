"""The label store: every submission is kept, and the study's files always show the newest one.

Reading order: ``study`` (the folder and its images; what others use), ``revisions`` (append-only, over ``database``:
SQLite or PostgreSQL), ``revision_json`` (a LandmarkSet as the JSON of a revision), ``label_files`` (``labels/final`` as plain
files that people may edit).
Decision: the database is the truth and the files are a view of it that people may edit. Whoever writes a file holds
the study's lock and first takes in what a person changed there, so neither side ever overwrites the other unseen.
"""
