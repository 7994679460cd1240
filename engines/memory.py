"""Where the memory of a mapping lies, for native code; ctypes alone tells it of writable ones only."""

import ctypes
import mmap
from typing import ClassVar


class _PyBuffer(ctypes.Structure):
    """Python's Py_buffer, part of its stable ABI."""

    _fields_: ClassVar = [
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    ]


def address_of(mapping: mmap.mmap) -> int:
    """The address of a mapping's first byte, which holds for as long as the object lives and is not closed."""
    view = _PyBuffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(mapping), ctypes.byref(view), 0)
    address = view.buf
    ctypes.pythonapi.PyBuffer_Release(ctypes.byref(view))
    assert address is not None
    return int(address)
