"""Opens a browser at an address that holds a secret.

What a command is given as an argument, every user of the machine can read in its list of processes. So the browser
is given the name of a file that only this user can read, and the file sends it on.
"""

from __future__ import annotations

import html
import json
import tempfile
import time
import webbrowser
from pathlib import Path

from stillroom.cli.output import note

KEPT_SECONDS = 10.0  # for the browser to start and read the file


def open_once(address: str) -> None:
    """Returns when the file is gone; says so when no browser could be opened."""
    with tempfile.TemporaryDirectory(prefix="stillroom-") as folder:  # which nobody else can enter
        page = Path(folder) / "portal.html"
        page.touch(mode=0o600)
        page.write_text(_page(address))
        if not webbrowser.open(page.as_uri()):
            note("No browser could be opened here: open the address above yourself.")
            return
        note("If the browser shows no portal, open the address above yourself.")
        time.sleep(KEPT_SECONDS)


def _page(address: str) -> str:
    script = f"location.replace({json.dumps(address)})".replace("<", "\\u003c")
    link = f'<a href="{html.escape(address)}">The portal</a>'
    return f'<!doctype html><meta charset="utf-8"><title>stillroom</title><script>{script}</script>{link}\n'
