#!/usr/bin/env bash
# Guess:   the FID library torch-fidelity installs one importable package, torch_fidelity. A project whose own tests live in
#          tests/ (no __init__.py, root of the checkout first on sys.path) imports its helpers as tests.helper, whatever is installed.
# Truth:   torch-fidelity 0.4.0 installs a second, regular top-level package called tests. A regular package anywhere on sys.path
#          beats a folder without __init__.py that stands before it, so tests.helper is no longer found.
# Version: torch-fidelity 0.4.0 (the wheel on PyPI), CPython 3.11.
# Matters: torchmetrics[image] brings torch-fidelity along for FID, so installing a project's evaluation extra breaks its test suite.
#          Ours keeps its test helpers in a package of a name of their own.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-deps torch-fidelity==0.4.0
mkdir -p "$folder/project/tests"
echo 'x = 1' > "$folder/project/tests/helper.py"
cd "$folder/project"
shown=$("$folder/venv/bin/python" - <<'PY'
import importlib.metadata
import sys

sys.path.insert(0, ".")
files = importlib.metadata.files("torch-fidelity")
print("top level:", *sorted({f.parts[0] for f in files if f.name == "__init__.py" and len(f.parts) == 2}))
try:
    import tests.helper  # noqa: F401

    print("our helper was found")
except ModuleNotFoundError as error:
    print(error)
PY
)
echo "$shown"
[ "$shown" = "top level: tests torch_fidelity
No module named 'tests.helper'" ] || { echo "changed" >&2; exit 1; }
