# shellcheck shell=bash
# Long work in few words: what it says goes to a file, which an error names. Sourced by stack/verb and local/install.

quietly() { # quietly LOG WHAT COMMAND...: one command's output goes to LOG; V=1 shows it, too
  local log=$1 what=$2 code=0 ticker="" begun=$SECONDS
  (umask 077 && mkdir -p .stack)
  : >"$log"
  give_away "$log"
  if [[ ${V:-} == 1 ]]; then
    echo "$what"
    { "${@:3}" 2>&1 || echo $? >"$log.code"; } | tee "$log"
    code=$(cat "$log.code" 2>/dev/null || echo 0)
    rm -f "$log.code"
  else
    if [[ -t 1 ]]; then
      count_seconds "$what" "$begun" &
      ticker=$!
    else echo "$what ..."; fi
    "${@:3}" >"$log" 2>&1 || code=$?
    if [[ -n $ticker ]]; then
      kill "$ticker" 2>/dev/null || true
      wait "$ticker" 2>/dev/null || true
      printf '\r\033[K%s: %d s\n' "$what" $((SECONDS - begun))
    fi
    ((code == 0)) || last_words "$log" >&2
  fi
  sed -nE 's/^(#[0-9]+ [0-9.]+ )?(warning: .*)/\2/p' "$log" | sort -u
  return "$code"
}

count_seconds() { # count_seconds WHAT BEGUN: until it is killed, or we are
  while kill -0 $$ 2>/dev/null; do
    printf '\r\033[K%s: %d s' "$1" $((SECONDS - $2))
    sleep 1
  done
}

last_words() { # last_words LOG: of the step that failed where BuildKit wrote the file, of all elsewhere
  local step
  step=$(sed -n 's/^#\([0-9]*\) ERROR: .*/\1/p' "$1" | head -n 1)
  if [[ -n $step ]]; then sed -nE "s/^#$step [0-9.]+ (.*)/\1/p" "$1" | tail -n 20
  else tail -n 20 "$1"; fi
  echo "(all of it: $1)"
}
