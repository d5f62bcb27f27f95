"""`/msi/token`: the managed identity that `DefaultAzureCredential` asks, answered with an API key.

Azure's SDKs send the header that IDENTITY_HEADER names; here it holds a key, which comes back as
the token, so that code written for Entra ID runs with two environment variables.
"""

from __future__ import annotations

import time

from stillroom.api.wire import Call, Reply
from stillroom.errors import InvalidRequest

HEADER = "x-identity-header"
VALID_SECONDS = 24 * 3600


def token(call: Call) -> Reply:
    """Give the caller's own key back as an access token."""
    key = call.headers.get(HEADER)
    if key is None:
        raise InvalidRequest("Send the API key as the header 'X-IDENTITY-HEADER': it comes back as the token.")
    return Reply(
        body={
            "access_token": key,
            "expires_on": str(int(time.time()) + VALID_SECONDS),
            "resource": call.query.get("resource", ""),
            "token_type": "Bearer",
            "client_id": "stillroom",
        }
    )
