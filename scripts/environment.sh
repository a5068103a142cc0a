# Sourced by the scripts in this folder: creates the virtual environment and keeps it at the pinned requirements.
#
#   ensure_environment predictor|dev    creates .venv if it is missing, and installs that set of pins
#   find_python                         prints a Python that is new enough, or ends with a message
#
# Settings: PYTHON (default python3.11, else python3), VENV (default .venv), TORCH_INDEX_URL (the package index for
# PyTorch, if pip would otherwise install a build for something other than the CPU; see the README).

# An absolute path, because programs that the tests start may look for Python from other folders.
VENV=$(realpath --no-symlinks "${VENV:-.venv}")

find_python() { # print the path of a Python that is new enough
  local python
  python=${PYTHON:-$(command -v python3.11 || command -v python3 || true)}
  if [[ -z "$python" ]] || ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "Python 3.11 or newer is needed; install it, or name it: PYTHON=/path/to/python $0" >&2
    exit 1
  fi
  echo "$python"
}

ensure_environment() {
  local pins="requirements/$1.txt" stamp="$VENV/.installed-$1" python
  local wanted
  wanted=$(cat requirements/*.txt pyproject.toml clients/python/pyproject.toml | sha256sum)
  if [[ -x "$VENV/bin/python" && -f "$stamp" && "$(cat "$stamp")" == "$wanted" ]]; then
    return
  fi
  python=$(find_python)
  if [[ ! -x "$VENV/bin/pip" ]]; then
    "$python" -m venv "$VENV" || {
      echo "'$python -m venv' failed; on Debian and Ubuntu: apt-get install python3-venv" >&2
      exit 1
    }
  fi
  echo "installing $pins into $VENV (the first time this takes a minute or two)" >&2
  install_pinned() { # pip's resolver prints warnings about its own configuration that do not matter here
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-compile "$@" \
      2> >(grep -v '^WARNING: Location' >&2)
  }
  install_pinned -r requirements/pip.txt
  if [[ -n "${TORCH_INDEX_URL:-}" ]]; then
    install_pinned --index-url "$TORCH_INDEX_URL" "$(grep -h '^torch==' requirements/predictor.txt)"
  fi
  install_pinned -r "$pins"
  install_pinned --no-deps --editable clients/python --editable .
  # pip compiles with one core. Nothing that serves imports PyTorch: what training imports of it is compiled then. Some
  # packages have files for other versions of Python, which fail.
  local skipped=()
  [[ "$1" == dev ]] || skipped=(-x '/site-packages/(torch|functorch|sympy|mpmath|networkx)/')
  "$VENV/bin/python" -m compileall -qq -j 0 ${skipped[@]+"${skipped[@]}"} "$VENV"/lib/python3*/site-packages || true
  echo "$wanted" >"$stamp"
}
