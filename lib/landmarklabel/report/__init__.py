"""Reports people read: one HTML file each, with its pictures inside, that opens offline and runs no script.

``page`` builds the file and escapes every text, ``pictures`` draws figures, ``evaluation`` says how good a model is.
Decision: figures are ``matplotlib.figure.Figure`` objects, never pyplot, so a server thread can draw them too.
"""
