"""Found first on PYTHONPATH by the processes of ``coordsim profile``; then whatever sitecustomize there is besides."""

import importlib.util
import os
import sys
from importlib.machinery import PathFinder

_here = os.path.dirname(os.path.abspath(__file__))
_others = [path for path in sys.path if os.path.abspath(path or ".") != _here]
_theirs = PathFinder.find_spec("sitecustomize", _others)
if _theirs is not None and _theirs.loader is not None:
    _module = importlib.util.module_from_spec(_theirs)
    sys.modules["sitecustomize"] = _module
    _theirs.loader.exec_module(_module)
if os.environ.get("COORDSIM_PROFILE"):
    try:
        from real_backend.profile.install import install

        install()
    except Exception as error:
        print(f"coordsim profile: nothing is recorded in process {os.getpid()}: {error}", file=sys.stderr)
