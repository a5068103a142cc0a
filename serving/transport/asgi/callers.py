"""The caller's certificate, as Envoy passes it on: a header that callers cannot send themselves.

Envoy removes the header from every request, and sets it anew where it has verified a certificate itself. Of what the
header can say, only the certificate as a whole is used: names in it are not escaped, and could imitate each other.
"""

from __future__ import annotations

import functools
import re
from typing import Final
from urllib.parse import unquote_to_bytes

HEADER: Final = b"x-forwarded-client-cert"

# In quotes, and encoded as in a URL, so that no quote is within.
_CERTIFICATE: Final = re.compile(r'(?:\A|;)Cert="([^";,]*)"(?:;|\Z)')


# Every call of a connection has the same.
@functools.lru_cache(maxsize=1024)
def certificate_of(value: str) -> bytes | None:
    """Return the certificate that the header's value tells, in PEM; ``None`` where there is none."""
    found = _CERTIFICATE.search(value)
    return None if found is None else unquote_to_bytes(found[1])
