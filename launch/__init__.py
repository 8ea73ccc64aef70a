"""The launcher: plans, checks and starts trainings. It never imports torch."""
