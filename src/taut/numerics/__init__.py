"""Number formats as integer-exact codecs: what a tensor is stored as, to the byte.

Importing this room registers `torch.ops.taut.decode`, `encoded_embedding` and `fake_quantise`.
"""

from taut.numerics import _operators as _operators
from taut.numerics._choosers import CHOOSERS
from taut.numerics._convolution import convolution_rows, from_convolution_rows
from taut.numerics._elements import FloatElements, IntegerElements
from taut.numerics._encode import encode
from taut.numerics._encoded import Encoded
from taut.numerics._format import Coarse, Format, Scales
from taut.numerics._registry import FORMATS, get_format
from taut.numerics._schemes import SCHEMES, Scheme, get_scheme
from taut.numerics._storage import load_encoded, save_encoded

__all__ = [
    "CHOOSERS",
    "FORMATS",
    "SCHEMES",
    "Coarse",
    "Encoded",
    "FloatElements",
    "Format",
    "IntegerElements",
    "Scales",
    "Scheme",
    "convolution_rows",
    "encode",
    "from_convolution_rows",
    "get_format",
    "get_scheme",
    "load_encoded",
    "save_encoded",
]
