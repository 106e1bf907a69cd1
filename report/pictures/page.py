"""A page for the browser that fetches nothing: data, style and script are inside it."""

import base64
import hashlib
import json
from html import escape
from typing import Any

from report.style import CSS

_CONTROLS = """
.controls { display: flex; flex-wrap: wrap; gap: 8px 20px; align-items: center; }
.controls label { color: var(--muted); font-size: 13px; }
.controls select, .controls input { font: inherit; color: var(--text); background: var(--panel);
  border: 1px solid var(--rule); border-radius: 6px; padding: 2px 8px; }
.readout { min-height: 24px; font: 13px/1.6 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono",
  monospace; overflow-wrap: anywhere; max-width: none; }
"""


def page_of(title: str, body: str, data: Any, css: str, script: str) -> str:
    """A whole document; `script` finds what JSON holds of `data` in the constant of that name.

    Args:
      title: plain text.
      body, css, script: trusted; text from elsewhere belongs in `data`, which the script is to
        show as text.
    """
    # "<" may not come inside: "</script>" or "<!--" in a token would end the element.
    stored = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    reader = 'const data = JSON.parse(document.getElementById("data").textContent);'
    program = f"{reader}\n{script}"
    digest = base64.b64encode(hashlib.sha256(program.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}{_CONTROLS}{css}</style></head>\n"
        f"<body><main>\n{body}\n</main>\n"
        f'<script type="application/json" id="data">{stored}</script>\n'
        f"<script>{program}</script></body></html>\n"
    )
