"""Models of hardware: the links between hosts."""
