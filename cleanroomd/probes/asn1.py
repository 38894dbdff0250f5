"""What pyasn1 raises on bytes that are not ASN.1, or not of the type that was asked for."""

from pyasn1.error import PyAsn1Error

DECODE_ERRORS = (PyAsn1Error, ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError)
