# shellcheck shell=bash
# One at a time in a folder: two starts at once would make each other fail. Sourced by stack/verb and local/install.

alone() { # alone NAME COMMAND...: runs it as soon as no other process here is at work under this name
  local lock=.stack/$1.lock
  (umask 077 && mkdir -p .stack)
  give_away .stack
  [[ -w .stack ]] || fail ".stack/ cannot be written by $(id -un). Fix it: sudo chown -R $(id -u):$(id -g) .stack"
  if command -v flock >/dev/null; then
    exec 9>"$lock"
    give_away "$lock"
    flock --nonblock 9 || { echo "another make is running in this folder: waiting for it" >&2 && flock 9; }
    "${@:2}" 9>&- # nothing that it starts holds the lock
    exec 9>&-
  else
    hold_link "$lock.pid"
    "${@:2}"
    rm -f "$lock.pid"
    trap - EXIT
  fi
}

hold_link() { # hold_link LINK: where there is no flock, as on macOS, a link to nowhere that names its holder
  local holder waiting=""
  until ln -s "$$" "$1" 2>/dev/null; do
    holder=$(readlink "$1") || continue
    if ps -p "$holder" >/dev/null 2>&1; then
      [[ -n $waiting ]] || echo "another make (process $holder) is running in this folder: waiting for it" >&2
      waiting=1
      sleep 0.2
    elif mkdir "$1.taking" 2>/dev/null; then # it was killed; two that find it dead do not take each other's
      [[ $(readlink "$1") != "$holder" ]] || rm -f "$1"
      rmdir "$1.taking"
    fi
  done
  # shellcheck disable=SC2064 # the name of now
  trap "rm -f '$1'" EXIT
}
