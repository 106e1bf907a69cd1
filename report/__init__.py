"""What happened: a run directory becomes one self-contained HTML page.

Everything here reads files that may be damaged, half written or hostile: values are checked for
their type before use, and text is escaped before it reaches the page.
"""
