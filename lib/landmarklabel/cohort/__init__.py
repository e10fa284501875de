"""Predicting cohorts: a manifest, a result for every case exactly once, and one table of them."""
