"""Interactive methods, one file per family, found by name in `lib.interactive.METHODS`."""
