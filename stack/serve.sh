# shellcheck shell=bash disable=SC2154
# The service that answers from exported runs (docs/serving.md). Sourced by stack/verb.

serve_up() { # exports what is not exported, chooses it, then starts the service or has it roll over to it
  local runs said code=0 renewed=0
  read -ra runs <<<"${RUN:-}"
  ((${#runs[@]})) || fail 'what? For example: make serve RUN=last, or two of different kinds: make serve RUN="FIRST SECOND"'
  check_settings
  check_serve
  behind_door || check_ports serve serve
  check_folders
  write_settings
  [[ $engine != docker ]] || open_folders
  (umask 077 && mkdir -p .stack)
  rm -f .stack/served
  [[ ! -e models/served ]] || cp -p models/served .stack/served
  engine_execute trainlab serve --choose -- "${runs[@]}"
  alone up engine_serve_up
  if ((renewed)); then said=$(engine_serve_ready 1) || code=$?
  else said=$(engine_serve_ready) || code=$?; fi
  case $code in
    0) say_serve "$said" ;;
    2) refused ;;
    *) fail "whether the service serves it is not known. models/served names what you chose; \`make logs ARGS=serve\`
       shows what happened. To start it anew: make unserve, then make serve" ;;
  esac
}

check_serve() { # refuses settings that would fail later with a worse message
  local service
  check_port_number SERVE_PORT
  for service in jupyter tensorboard; do
    [[ $(port_of serve) != "$(port_of "$service")" ]] ||
      fail "SERVE_PORT and $(port_variable "$service") are both $(port_of serve); each service needs its own port"
  done
  [[ $(setting SERVE_TOKEN "") != *[![:graph:]]* ]] || fail "SERVE_TOKEN in .env has a blank or a control character in it: choose another."
}

refused() { # what goes on being served is what the next start finds, too
  ((renewed)) || exit 2
  if [[ -e .stack/served ]]; then cp -p .stack/served models/.served && mv models/.served models/served; fi
  echo "What was served before goes on being served." >&2
  exit 2
}

behind_door() { [[ $engine == docker ]] && shared; } # it has no port then (docker-compose.share.yml)

serves() { if behind_door; then [[ $(engine_state serve) != down ]]; else [[ -n $(engine_port serve) ]]; fi; } # whether it is up

serve_address() { if behind_door; then echo "$(share_address)/serve/"; else address serve ""; fi; }

say_serve() { # say_serve WHAT: a line for each kind
  echo
  echo "Serving      $(serve_address)"
  while IFS= read -r line; do echo "             $line"; done <<<"$1"
  if behind_door; then engine_running || echo "             The way there is open with the stack: \`make up\`"
  elif [[ -n $(setting SERVE_TOKEN "") ]]; then echo "             Callers send SERVE_TOKEN of .env: \`Authorization: Bearer ...\`"
  fi
  echo "\`make unserve\` stops it."
}
