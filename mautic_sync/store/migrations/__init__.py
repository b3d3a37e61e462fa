"""The history of the tables. A store is up to date at the revision `HEAD`, the last of `versions/`."""

HEAD = "0012"
