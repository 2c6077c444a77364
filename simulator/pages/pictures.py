"""Arrays as pictures inside a page."""

import base64
import io

import numpy as np
from PIL import Image


def png_address(pixels: np.ndarray) -> str:
    """`(h, w, 3 or 4)` uint8 as the address of a PNG within the page."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
