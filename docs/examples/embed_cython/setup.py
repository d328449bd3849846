"""An extension in Cython that uses the core of the installed jobserver-ffi: nothing of it is compiled or linked."""

from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

import jobserver_ffi

extension = Extension("crew", ["crew.pyx"], include_dirs=[jobserver_ffi.get_include()])

# Cython looks for `jobserver_ffi/__init__.pxd` on sys.path; naming the place finds it in editable installs too.
place = str(Path(jobserver_ffi.__file__).parent.parent)
setup(ext_modules=cythonize([extension], include_path=[place], language_level=3))
