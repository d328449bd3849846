"""The pools that can be seen from here: what `jobserver status` prints.

surrounding.py sees the jobserver around this process, served.py the pools of `jobserver serve`, running.py (with
jobservers.py, which finds what a process has) those of running makes and the like. All of them make a `SeenPool`
(seen.py), which text.py writes for people and prometheus.py for Prometheus.
"""
