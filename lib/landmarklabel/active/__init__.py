"""Which case to label next, when to train again, and whether labelling more still pays.

``strategies`` choose from the ``unlabelled_pool``; ``annotator`` and ``campaign`` play people over known labels.
"""
