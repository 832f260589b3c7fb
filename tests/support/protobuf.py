"""What protobuf writes, byte by byte, for messages that its library would not write."""

from __future__ import annotations


def varint(number: int) -> bytes:
    """A number, of 64 bits at most."""
    number %= 1 << 64
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])


def field(number: int, payload: bytes) -> bytes:
    """A field that holds bytes, a text or a message."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload
