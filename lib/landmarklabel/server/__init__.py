"""The MONAI Label app: the only place that imports monailabel or fastapi.

``app`` is what ``monailabel start_server`` loads; ``datastore`` shows a Study as MONAI Label's datastore, ``infer`` and
``train`` are its tasks, ``sessions`` keeps uploaded images, ``routes`` adds and replaces HTTP routes, ``guard`` lets in whom
``access`` lists (``keycloak`` asks who that is), ``jobs`` keeps trainings over restarts, ``console`` is all that is logged.
Decision: plain ``monailabel start_server --app`` must be enough, so everything is installed from the app itself.
"""
