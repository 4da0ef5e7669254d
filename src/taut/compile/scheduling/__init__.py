"""Schedules of real programs: what to run at the same time, found by measurement, and kept only where it pays."""
