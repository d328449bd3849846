"""Why there is a jobserver or why not, and which tools would join it: what `jobserver doctor` prints.

diagnosis.py looks at this process, with causes.py (why there is none), pool.py (what is wrong with one that is there),
and surroundings.py (what goes past it); ../processes.py reads /proc for them. tools.py finds the tools, trials.py
tries them.
"""
