"""From trained weights to label maps; `predict` is imported by name, so that trainings do without what it needs."""
