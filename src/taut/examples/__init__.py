"""Models that come with taut; `taut optimize` without a model runs `taut.examples.digits`."""
