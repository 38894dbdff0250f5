"""TLS to restored machines: transport, and where the plan pins one, a certificate.

A restored machine shows the certificate that it always had: usually self-signed, often expired, for a name
that nothing here resolves. So no chain, name or date is checked, and old protocol versions are accepted as
far as OpenSSL still speaks them. That is no loss, since the routed tap, not a certificate, says which machine
answers. A pin tells one thing more: that it is the certificate which was staged, not a default of the image.
"""

import functools
import hashlib
import ssl

from cleanroomd.probes.answer import UnreadyError
from cleanroomd.probes.connection import Connection

_LEGACY_SERVER_CONNECT = 0x4
"""SSL_OP_LEGACY_SERVER_CONNECT: servers without secure renegotiation (Python's ssl names it since 3.12)."""


@functools.cache
def tls_context() -> ssl.SSLContext:
    """The one context; the first call reads OpenSSL's configuration file, so make it before the sandbox."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.options |= _LEGACY_SERVER_CONNECT
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context


def require_pin(connection: Connection, pin: str) -> None:
    """Return when the certificate's SHA-256 is `pin` in hexadecimal, or no pin is given.

    It is taken over the whole certificate (DER), as `openssl x509 -fingerprint -sha256` prints it: a machine
    restored from a sealed image cannot have renewed its certificate, so the key alone would prove less.
    """
    if not pin:
        return
    certificate = connection.peer_certificate()
    if not certificate:
        raise UnreadyError("no certificate was shown")
    found = hashlib.sha256(certificate).hexdigest()
    if found != pin:
        raise UnreadyError(f"the certificate is another one, sha256:{found}")
