"""Why there is a jobserver or why not, and which tools would join it: what `jobserver doctor` prints.

`diagnose` looks at this process, its environment and the processes above it; `survey` tries the tools on PATH.
"""

from __future__ import annotations

from .diagnosis import Diagnosis, diagnose
from .finding import Finding
from .tools import Tool, findings_of_tools, survey

__all__ = ["Diagnosis", "Finding", "Tool", "diagnose", "findings_of_tools", "survey"]
