"""An extension in C with the core compiled into it: it needs jobserver-ffi to be built, and not to run."""

import os

from setuptools import Extension, setup

import jobserver_ffi

sources = ["solo.c", *jobserver_ffi.copy_sources("core")]  # setuptools compiles only files of the project
setup(
    ext_modules=[
        Extension(
            "solo",
            sources,
            include_dirs=["core"],
            define_macros=[("JOBSERVER_COMPILED_IN", None)],
            extra_compile_args=[] if os.name == "nt" else ["-std=c11", "-fvisibility=hidden"],
            extra_link_args=[] if os.name == "nt" else ["-pthread"],
            libraries=["advapi32"] if os.name == "nt" else [],
        )
    ]
)
