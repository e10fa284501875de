"""What the servers and the command line share: a study's cases and trainings. Imports neither monailabel nor fastapi."""
