"""The HTTP server of a study.

``application`` is a study as it is served; ``app`` puts the routes together behind the ``guard``, which lets in whom ``access``
lists (``keycloak`` asks who that is). ``routes`` are our own; ``monailabel_routes``, ``background`` and ``uploads`` are those
of MONAI Label's contract; ``running`` is the server as a process. ``monailabel`` has the same application answer under
``monailabel start_server``: it alone imports MONAI Label, and nothing else here needs it.
"""
