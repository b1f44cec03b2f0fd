#!/usr/bin/env bash
# Creates the environment with a tested stack: .venv/ in the checkout, or an active virtual
# environment. quickstart.sh and test.sh source this file and call set_up; it also runs alone:
#
#   bash tools/setup.sh [--stack openmmlab|onedl] [--with NAME]
#
#   --stack onedl       the maintained forks of mmcv, mmengine, mmdet and mmseg instead of the
#                       releases of OpenMMLab, in .venv-onedl/
#   --with litert       also the converter to LiteRT, in .venv-litert/, which sees the packages of the
#                       environment; --with executorch: ExecuTorch, in .venv-executorch/;
#                       --with coreml: the converter to Core ML, in .venv-coreml/
#   PYTHON=python3.12   creates the environment with that Python (3.10, 3.11 or 3.12), whichever
#                       is active
#   FORCE_CUDA=1 TORCH_CUDA_ARCH_LIST="8.6;9.0"
#                       with CUDA where there is no GPU, as for an image: torch's CUDA build and
#                       mmcv's CUDA operators for GPUs of these compute capabilities
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache} TMP=${TMPDIR:-/tmp}
STACK=openmmlab STEP='set-up' LOG='' JOBS=''
AGAIN='run this again'
WIDTH=$(tput cols 2>/dev/null || echo 80)
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_USER=0 PYTHONUNBUFFERED=1

# --- messages and steps --------------------------------------------------------------------------

fail() { # WHY WHAT-TO-DO
  if [ -t 1 ]; then printf '\r\033[K'; fi
  {
    printf '\nFAILED: %s\n  why:         %s\n  what to do:  %s\n' "$STEP" "$1" "$2"
    if [ -s "$LOG" ]; then
      printf '  full log:    %s\n' "$LOG"
      { grep -vE '^(WHY|CURE): |^ *$' "$LOG" || true; } | tail -n 5 | cut -c 1-160 | sed 's/^/    | /'
    fi
  } >&2
  exit 1
}

has() { grep -qE "$1" "$LOG"; }

free_mb() { # PATH, whose last parts need not exist yet
  local path=$1
  while [ ! -d "$path" ]; do path=$(dirname "$path"); done
  df -Pk "$path" | awk 'NR == 2 { print int($4 / 1024) }'
}

explain() { # EXIT-STATUS: fails with a reason taken from the log of the step
  local place offline='NewConnectionError|ConnectTimeout|Read timed out|Name or service not known'
  offline="$offline|Connection (refused|reset|aborted)|name resolution|ProxyError|SSLError"
  if has '^WHY: '; then
    fail "$(sed -n 's/^WHY: //p' "$LOG")" "$(sed -n 's/^CURE: //p' "$LOG")"
  fi
  for place in "$ENV" "$CACHE" "$TMP"; do # on a full disk the log may lack its message
    if [ "$(free_mb "$place")" -lt 20 ]; then
      fail "the disk that holds $place is full" "free 3 GB there and $AGAIN"
    fi
  done
  if has 'No space left on device|Errno 28|quota exceeded'; then
    fail "a disk is full: that of $ENV, $CACHE or $TMP" "free 3 GB there and $AGAIN"
  elif has 'Killed signal|died due to signal 9|MemoryError|Cannot allocate memory'; then
    fail 'out of memory' "close other programs, or set MAX_JOBS=1, and $AGAIN"
  elif has 'IncompleteRead|DO NOT MATCH THE HASHES|Connection broken|BadZipFile|is invalid'; then
    fail 'a download was cut off or is damaged' "check the connection and $AGAIN"
  elif has "$offline"; then
    fail 'a package index cannot be reached' "check the network, and the indexes and proxies \
that 'pip config list' and the PIP_* variables name; then $AGAIN"
  elif has 'No matching distribution|ResolutionImpossible'; then
    place=$(sed -n 's/.*No matching distribution found for //p' "$LOG" | tail -n 1)
    fail "no package index has ${place:-all the pinned versions} for $("$PY" -V) on $(uname -sm)" \
      "try another Python with PYTHON=..., and see which indexes 'pip config list' names"
  elif [ "$1" -gt 128 ]; then
    fail "it was ended by signal $(($1 - 128))" "$AGAIN"
  fi
  fail 'its command failed, see below' 'see the log, and report it if nothing on this machine explains it'
}

launch() { # LOG COMMAND...: starts it in a new process group, so that kill_jobs reaches its children
  LOG=$1 && shift
  : >"$LOG"
  set -m
  "$@" >"$LOG" 2>&1 </dev/null &
  set +m
  JOB=$! JOBS="$JOBS $!"
}

progress() { # progress of the job from its log: compiled files or the current package
  { grep -oE '^ *(\[[0-9]+/[0-9]+\]|(Collecting|Installing|Building|Downloading) .*)' "$LOG" || true; } |
    tail -n 1 | sed -E 's/^ +//; s/(Collecting [^ =<>!~;]*).*/\1/; s/^\[(.*)\]/\1 files/' | cut -c 1-60
}

follow() { # TITLE LOG JOB STARTED: shows the job until it ends
  local pid=$3 status=0 said=0 gone line
  STEP=$1 LOG=$2
  while kill -0 "$pid" 2>/dev/null; do
    gone=$((SECONDS - $4)) && line="  $STEP: $gone s  $(progress)"
    if [ -t 1 ]; then
      printf '\r\033[K%s' "${line:0:$((WIDTH - 1))}"
    elif [ "$gone" -ge $((said + 30)) ]; then
      said=$gone && echo "$line"
    fi
    sleep 0.3
  done
  wait "$pid" || status=$?
  JOBS=${JOBS/ $pid/}
  if [ "$status" != 0 ]; then explain "$status"; fi
  if [ -t 1 ]; then printf '\r\033[K'; fi
  echo "  $STEP: done in $((SECONDS - $4)) s"
}

step() { # TITLE LOG COMMAND...
  local title=$1 log=$STATE/logs/$2.log started=$SECONDS
  shift 2
  launch "$log" "$@"
  follow "$title" "$log" "$JOB" "$started"
}

kill_jobs() { # their process groups do not receive Ctrl-C
  local job
  for job in $JOBS; do kill -TERM -- "-$job" 2>/dev/null || true; done
}

# --- requirements ---------------------------------------------------------------------------------

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true; }

supported() { case $(version_of "$1") in 3.10 | 3.11 | 3.12) ;; *) return 1 ;; esac }

take_stack() { # OPTIONS...: reads a leading --stack NAME; leaves the rest in REST
  case ${1:-} in
    --stack=*) STACK=${1#*=} && shift ;;
    --stack) STACK=${2:-} && shift $(($# > 1 ? 2 : 1)) ;;
  esac
  REST=("$@")
}

choose_stack() { # sets ENV to the stack's own, and REQUIREMENTS
  STEP='choosing the stack'
  case $STACK in
    openmmlab) ENV=$ROOT/.venv REQUIREMENTS=tools/requirements.txt ;;
    onedl) ENV=$ROOT/.venv-onedl REQUIREMENTS=tools/requirements-onedl.txt ;;
    *) fail "there is no stack '$STACK'" 'choose --stack openmmlab or --stack onedl' ;;
  esac
}

choose_python() { # sets ENV, and BASE: the Python in it or to create it with
  local name version found='' needs='this needs 3.10, 3.11 or 3.12'
  STEP='choosing a Python'
  if [ -n "${PYTHON:-}" ]; then
    BASE=$PYTHON version=$(version_of "$PYTHON")
    [ -n "$version" ] || fail "PYTHON=$PYTHON does not run; $needs" 'set it to one of these'
    supported "$BASE" || fail "PYTHON=$PYTHON is Python $version; $needs" 'set it to one of these'
    name=$(version_of "$ENV/bin/python")
    [ "${name:-$version}" = "$version" ] ||
      fail "PYTHON=$PYTHON is Python $version, but ${ENV##*/} has $name" \
        "remove ${ENV##*/}, or unset PYTHON"
    return
  fi
  case ${VIRTUAL_ENV:-} in
    "$ROOT/.venv" | "$ROOT/.venv-onedl") ;; # each belongs to one stack, whichever is active
    *) if [ -x "${VIRTUAL_ENV:-}/bin/python" ]; then ENV=$VIRTUAL_ENV; fi ;;
  esac
  BASE=$ENV/bin/python version=$(version_of "$ENV/bin/python")
  if [ -n "$version" ] && { [ ! -f "$ENV/lightvit_mm/ours" ] || [ -f "$ENV/lightvit_mm/made" ]; }; then
    supported "$BASE" || fail "the virtual environment $ENV has Python $version; $needs" \
      'leave it (deactivate) or remove it, and run this again'
    return
  fi
  for BASE in python3 python3.11 python3.12 python3.10 python; do
    version=$(version_of "$BASE")
    if supported "$BASE"; then return; fi
    found="$found${version:+${found:+, }$BASE is $version}"
  done
  fail "no Python 3.10, 3.11 or 3.12 on the PATH (${found:-no Python at all})" "install one (Debian, \
Ubuntu: apt install python3.11 python3.11-venv python3.11-dev), or name one with PYTHON=..."
}

installed() { compgen -G "$ENV/lib/python*/site-packages/$1" >/dev/null; }

refuse_other_stack() { # both stacks install the same files and would overwrite each other
  local name path others found='' all=''
  local originals='mmcv mmcv_lite mmcv_full mmengine mmengine_lite mmdet mmsegmentation'
  local forks='onedl_mmcv onedl_mmengine onedl_mmdetection onedl_mmsegmentation'
  STEP='looking for another stack' others=$forks
  if [ "$STACK" = onedl ]; then others=$originals; fi
  for name in $originals $forks; do
    for path in "$ENV"/lib/python*/site-packages/"$name"-*.dist-info; do
      if [ ! -d "$path" ]; then continue; fi
      all="$all $name" path=$(basename "$path" .dist-info)
      case " $others " in *" $name "*) found="$found${found:+, }$path" ;; esac
    done
  done
  [ -z "$found" ] || fail "$ENV has $found, of which --stack $STACK would overwrite the files" \
    "use another virtual environment, or first empty this one: pip uninstall -y$all"
}

need_mb() { # PATH MB PURPOSE WHAT-ELSE-TO-DO
  local free
  free=$(free_mb "$1")
  [ "$free" -ge "$2" ] || fail "$3 needs $2 MB; the disk that holds $1 has $free free" "free some, or $4"
}

look_for_gpu() { # sets GPU: what CUDA is for, or empty
  GPU=$({ nvidia-smi -L 2>/dev/null || true; } | sed -n '/^GPU/{p;q;}')
  if [ "${FORCE_CUDA:-}" = 1 ]; then GPU="$GPU FORCE_CUDA=1 ${TORCH_CUDA_ARCH_LIST:-}"; fi
}

preflight() {
  local size=2600
  STEP='checking the machine'
  if [ ! -x "$ENV/bin/python" ] && ! "$BASE" -c 'import venv, ensurepip' 2>/dev/null; then
    fail "$BASE (Python $(version_of "$BASE")) lacks its venv or ensurepip module" "install it (Debian, \
Ubuntu: apt install python$(version_of "$BASE")-venv), or choose another Python with PYTHON=..."
  fi
  # measured: 1600 MB installed; on the same disk, up to 900 for downloads and 60 for the build
  if [ -n "$GPU" ]; then size=9000; fi
  if installed 'torch/version.py'; then size=1000; fi
  if installed 'mmcv/_ext*'; then size=200; fi
  need_mb "$ENV" "$size" 'the environment' 'check the project out on a larger one'
  need_mb "$TMP" $((size / 4)) 'unpacking' 'set TMPDIR to a folder on a larger one'
  need_mb "$CACHE" $((size / 4)) 'the cache' 'set XDG_CACHE_HOME to a folder on a larger one'
}

lock() { # file 9 stays locked until this shell ends; if it is killed, until its jobs end
  mkdir -p "$STATE/logs" || fail "cannot write to $ENV" 'make it writable, or leave it (deactivate)'
  exec 9>"$STATE/lock"
  "$BASE" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)' 2>/dev/null ||
    step 'waiting for another set-up of this environment' lock \
      "$BASE" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'
}

# --- the parts of the environment ----------------------------------------------------------------

make_env() { # "ours" marks an environment that may be wiped if it is incomplete
  STEP='creating the virtual environment' LOG=''
  if [ -f "$ENV/pyvenv.cfg" ] && [ ! -f "$STATE/ours" ]; then
    "$PY" -m pip --version >/dev/null 2>&1 || "$PY" -m ensurepip >/dev/null 2>&1 ||
      fail "$ENV was not created by this script, and its Python or pip does not run" \
        'fix or remove it, and run this again'
    return
  fi
  if [ -f "$STATE/made" ] && [ -n "$(version_of "$PY")" ]; then return; fi
  if [ ! -f "$STATE/ours" ] && [ "$(ls -A "$ENV")" != lightvit_mm ]; then
    fail "$ENV exists but is not a virtual environment" 'move it away and run this again'
  fi
  : >"$STATE/ours"
  rm -f "$STATE/made"
  find "$ENV" -mindepth 1 -maxdepth 1 ! -name lightvit_mm -exec rm -rf {} +
  step "$STEP" venv "$BASE" -m venv "$ENV"
  : >"$STATE/made"
}

repair() { # pip writes RECORD last: without it a package is incomplete, and pip can't replace it
  "$PY" - "$STATE" <<'PYTHON'
import csv, pathlib, shutil, sys, sysconfig
site = pathlib.Path(sysconfig.get_path('purelib'))
ours = pathlib.Path(sys.argv[1], 'ours').exists()
def whole(info):
    record, by = info / 'RECORD', info / 'INSTALLER'
    if by.exists() and by.read_text().strip() not in ('', 'pip'):
        return True
    if not ours or not record.exists():
        return record.exists()
    rows = [row for row in csv.reader(record.open(newline='')) if not row[0].endswith('.pyc')]
    files = [(site / name, size) for name, _, size in rows]
    return all(file.exists() and (file.stat().st_size or not int(size or 0)) for file, size in files)
for info in site.glob('*.dist-info'):
    if not whole(info):
        print(f'  {info.name[:-10]} is incomplete: it will be installed again', flush=True)
        shutil.rmtree(info)
for left in site.glob('~*') if ours else ():  # packages that pip moved aside while replacing them
    shutil.rmtree(left, ignore_errors=True)
PYTHON
}

pip_install() { "$PY" -m pip install --progress-bar off "$@"; }

install_torch() { # without dependencies: pip would try an index that is down for each of them
  local index='https://download.pytorch.org/whl/cpu'
  if [ "$(uname -s)" = Linux ] && [ -z "$GPU" ]; then
    pip_install --no-deps --retries 2 --timeout 15 --extra-index-url "$index" 'torch==2.13.0+cpu' &&
      return
    if has 'No space left on device'; then return 1; fi
    echo "no CPU build of torch found: using the default one, which may take several GB"
  fi
  # the CPU build counts as newer, wherever pip's configuration names its index
  pip_install --no-deps "torch==2.13.0${GPU:+,!=2.13.0+cpu}"
}

install_rest() {
  pip_install -r "$REQUIREMENTS"
  # opencv-python needs libGL, which a server may lack; the headless build replaces the same files
  "$PY" -c 'import cv2' || pip_install --no-deps --force-reinstall "$(
    sed -n 's/^opencv-python=/opencv-python-headless=/p' tools/requirements-common.txt
  )"
}

install_all() {
  local mmcv='' started
  installed 'torch-2.13.*.dist-info/RECORD' || step 'installing torch' torch install_torch
  step "installing torch's libraries and the build tools" build-tools \
    pip_install -c tools/requirements-common.txt torch numpy setuptools wheel ninja
  started=$SECONDS
  if ! installed 'mmcv/_ext*'; then
    launch "$STATE/logs/mmcv.log" "$PY" tools/build_mmcv.py wheel --stack "$STACK" && mmcv=$JOB
    # install the rest during the compilation, but not before it starts: mmcv's setup.py imports
    # some of it if present, and must not find an incomplete package
    until has '\[1/' || ! kill -0 "$mmcv" 2>/dev/null; do sleep 0.3; done
  fi
  step 'installing the other packages' packages install_rest
  [ -z "$mmcv" ] || follow "getting mmcv's compiled ops" "$STATE/logs/mmcv.log" "$mmcv" "$started"
  step 'installing mmcv' mmcv-install "$PY" tools/build_mmcv.py install --stack "$STACK"
  sed -n 's/^NOTE: /  note: /p' "$LOG"
  step 'installing lightvit_mm' package pip_install --no-deps --no-build-isolation -e .
}

ask_doctor() {
  STEP='looking at the environment' LOG=''
  "$PY" -m lightvit_mm.doctor ||
    fail "something in $ENV is broken" "run the commands after the arrows, and $AGAIN"
}

# --- all of it -----------------------------------------------------------------------------------

stamp() { # a checksum of everything the environment depends on
  local site=("$ENV"/lib/python*/site-packages)
  {
    echo "$ROOT $GPU $STACK" "${site[0]}"/{mm*,onedl_*,torch*,numpy,opencv_*,setuptools}-*.dist-info
    cat setup.py pyproject.toml tools/requirements*.txt tools/{_cuda,build_mmcv}.py tools/setup.sh
    cat "$ENV/pyvenv.cfg" "${site[0]}/torch/version.py"
  } | cksum
}

ready() { installed 'mmcv/_ext*' && [ "$(cat "$STATE/stamp" 2>/dev/null)" = "$(stamp)" ]; }

set_up() { # leaves PY, the environment's Python
  local started=$SECONDS
  cd "$ROOT"
  look_for_gpu
  choose_stack
  choose_python
  PY=$ENV/bin/python STATE=$ENV/lightvit_mm
  if ready; then return; fi
  echo "setting up $ENV"
  trap kill_jobs EXIT
  trap 'exit 130' INT TERM HUP
  refuse_other_stack
  preflight
  lock
  if ! ready; then
    rm -f "$STATE/stamp"
    installed 'mmcv/_ext*' ||
      step 'looking for a C++ compiler' compiler "$BASE" tools/build_mmcv.py check --stack "$STACK"
    make_env
    repair
    install_all
    ask_doctor
    stamp >"$STATE/stamp.new" && mv "$STATE/stamp.new" "$STATE/stamp"
  fi
  exec 9>&-
  trap - EXIT INT TERM HUP
  echo "set up in $((SECONDS - started)) s; logs in $STATE/logs"
}

set_up_converter() { # NAME: an environment that sees the packages of the main one
  local name=$1 own=$ROOT/.venv-$1 needed=tools/requirements-$1.txt made
  STEP="making the environment for $name" LOG=''
  made="$ENV $(cksum <"$needed")"
  if [ "$(cat "$own/lightvit_mm" 2>/dev/null)" = "$made" ]; then return; fi
  if [ -e "$own" ] && [ ! -f "$own/pyvenv.cfg" ]; then
    fail "$own exists but is not a virtual environment" 'move it away and run this again'
  fi
  need_mb "$ROOT" 2500 "the environment for $name" 'check the project out on a larger disk'
  trap kill_jobs EXIT
  trap 'exit 130' INT TERM HUP
  rm -rf "$own"
  step "$STEP" "venv-$name" "$PY" -m venv "$own"
  "$PY" -c 'import sysconfig
print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' >"$(
    "$own/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
  )/main.pth"
  step "installing $name" "$name" "$own/bin/python" -m pip install --progress-bar off -r "$needed"
  echo "$made" >"$own/lightvit_mm"
  trap - EXIT INT TERM HUP
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  take_stack "$@"
  WITH=''
  case ${REST[*]-} in
    '') ;;
    '--with litert' | '--with executorch' | '--with coreml') WITH=${REST[1]} ;;
    *)
      echo "setup: unknown option ${REST[0]}; there are --stack openmmlab|onedl and, after it," \
        '--with litert|executorch|coreml' >&2
      exit 2
      ;;
  esac
  set_up
  [ -z "$WITH" ] || set_up_converter "$WITH"
  echo "$PY is ready"
fi
