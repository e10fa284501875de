"""An example of everything that a plugin of LandmarkLabel can bring; docs/extending.md explains it."""
