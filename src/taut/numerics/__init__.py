"""Number formats as integer-exact codecs: what a tensor is stored as, to the byte."""
