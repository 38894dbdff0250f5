"""Basic encoding rules (X.690) for the messages of peers, written apart from what the probes decode with."""

SEQUENCE, INTEGER, OCTETS, ENUMERATED, SET, GENERAL_STRING, TIME = 0x30, 0x02, 0x04, 0x0A, 0x31, 0x1B, 0x18


def tlv(identifier: int, *contents: bytes) -> bytes:
    """One element with a definite length, in the long form where the short one is too small."""
    content = b"".join(contents)
    if len(content) < 0x80:
        return bytes([identifier, len(content)]) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8)
    return bytes([identifier, 0x80 | len(length)]) + length + content


def integer(value: int, identifier: int = INTEGER) -> bytes:
    return tlv(identifier, value.to_bytes(value.bit_length() // 8 + 1, signed=True))


def field(number: int, content: bytes) -> bytes:
    """[number] EXPLICIT."""
    return tlv(0xA0 + number, content)
