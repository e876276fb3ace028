# shellcheck shell=bash
# The engine without Docker: the two services under supervisord, in .venv, their state in .stack/.
# Defines engine_*; sourced by stack/verb. Everything that is started carries TRAINLAB_STACK in its environment:
# that is how `make down` finds it again, even a run that left its terminal or a kernel that lost its server.
stack=$PWD/.stack

engine_build() {
  local/install "$gpu"
}

engine_up() {
  [[ -r /proc/self/environ ]] || fail "without Docker the stack needs Linux; start Docker here"
  check_ports
  unprivileged_ports
  engine_build
  engine_running || start_services
  wait_until_healthy
}

unprivileged_ports() { # a port below 1024 is root's
  local service
  for service in jupyter tensorboard; do
    ((EUID == 0 || $(port_of "$service") >= 1024)) ||
      fail "$(port_variable "$service")=$(port_of "$service"): only root may use a port below 1024"
  done
}

start_services() {
  local JUPYTER_TOKEN
  JUPYTER_TOKEN=$(setting JUPYTER_TOKEN "")
  (umask 077 && mkdir -p .stack && port_of jupyter >.stack/jupyter.port && port_of tensorboard >.stack/tensorboard.port)
  chmod 700 .stack
  echo "starting JupyterLab and TensorBoard ..."
  (
    export JUPYTER_TOKEN JUPYTER_PORT TENSORBOARD_PORT
    JUPYTER_PORT=$(port_of jupyter) TENSORBOARD_PORT=$(port_of tensorboard)
    in_stack .venv/bin/python -m supervisor.supervisord -c local/supervisord.conf
  ) >.stack/start.log 2>&1 </dev/null || { cat .stack/start.log >&2 && fail "supervisord did not start"; }
}

in_stack() { # in_stack COMMAND...: with the environment that the containers have, too
  export_tracker_settings
  env TRAINLAB_STACK="$stack" TRAINLAB_ROOT="$PWD" HF_HOME="$PWD/data/hub" \
    MLFLOW_DISABLE_TELEMETRY=true WANDB_ERROR_REPORTING=false \
    HF_HUB_OFFLINE="$(setting HF_HUB_OFFLINE "")" PATH="$PWD/.venv/bin:$PATH" \
    VIRTUAL_ENV="$PWD/.venv" PYTHONNOUSERSITE=1 OMP_WAIT_POLICY="$(setting OMP_WAIT_POLICY PASSIVE)" TRAINLAB_USER="$(id -un)" \
    JUPYTER_CONFIG_DIR="$stack/jupyter/config" JUPYTER_DATA_DIR="$stack/jupyter/data" \
    JUPYTER_RUNTIME_DIR="$stack/jupyter/runtime" IPYTHONDIR="$stack/ipython" "$@"
}

export_tracker_settings() { # exported one by one: on a command line everybody on the machine could read a key
  local name value
  for name in $(tracker_settings); do
    value=$(setting "$name" "")
    [[ -z $value ]] || export "$name=$value"
  done
}

tracker_settings() { sed -nE 's/^ +((WANDB|MLFLOW)_[A-Z_]+):$/\1/p' docker-compose.yml; } # their names

wait_until_healthy() {
  local deadline=$((SECONDS + 60))
  until service_healthy jupyter && service_healthy tensorboard; do
    if ! engine_running || ((SECONDS >= deadline)); then give_up; fi
    sleep 0.1
  done
}

give_up() {
  tail -n 20 .stack/jupyter.log .stack/tensorboard.log >&2 || true
  engine_down >/dev/null
  fail "the services were not healthy within 60 s; their last words are above. Everything was stopped."
}

service_healthy() { # service_healthy SERVICE: by the containers' own checks
  local port
  port=$(engine_port "$1")
  env "$(port_variable "$1")=$port" bash "$1/health" 2>/dev/null
}

engine_running() { local_is_up; }

engine_port() { # engine_port SERVICE: the port it was started on, nothing when it is down
  engine_running && cat ".stack/$1.port" || true
}

engine_state() {
  if ! engine_running; then echo down
  elif service_healthy "$1"; then echo healthy
  else echo "not answering"; fi
}

engine_logs() { # engine_logs [SERVICE]: goes on with what is added, in a terminal
  local files=(.stack/*.log) options=(-n 100)
  (($#)) && files=(".stack/$1.log")
  [[ -e ${files[0]} ]] || fail "no such log: ${files[0]}; \`make up\` starts the services jupyter and tensorboard"
  [[ ! -t 1 ]] || options+=(-F)
  exec tail "${options[@]}" "${files[@]}"
}

engine_shell() { # a shell of the user's own: it outlives the stack
  engine_build
  in_stack env -u TRAINLAB_STACK "${SHELL:-bash}" "$@"
}

engine_trainlab() {
  engine_build >&2
  in_stack env -u JUPYTER_TOKEN .venv/bin/trainlab "$@"
}

engine_sbom() {
  engine_build
  .venv/bin/python stack/sbom.py trainlab python >.stack/venv.cdx.json
  echo "wrote .stack/venv.cdx.json"
}

engine_down() {
  trap '' HUP # `make down` typed into JupyterLab's terminal loses that terminal on the way
  local pids
  pids=$(workers)
  [[ -z $pids ]] || echo "interrupting $(wc -w <<<"$pids") run(s) still going on"
  if engine_running; then pids+=" $(cat .stack/supervisord.pid)"; fi
  send TERM "$pids" # they end what they started, and take some seconds to write down how
  await_end 10 || { send TERM "$(members)" && await_end 2; } || { send KILL "$(members)" && await_end 5; } ||
    fail "these processes do not end: $(members | tr '\n' ' ')"
  rm -f .stack/supervisord.pid .stack/*.port
  echo "stopped: nothing of the stack runs any more"
}

send() { # send SIGNAL PIDS
  local pid
  for pid in $2; do kill "-$1" "$pid" 2>/dev/null || true; done
}

await_end() { # await_end SECONDS: true as soon as no process of the stack is left
  local deadline=$((SECONDS + $1))
  while [[ -n $(members) ]]; do
    ((SECONDS < deadline)) || return 1
    sleep 0.1
  done
}

members() { # prints the processes of the stack: services, terminals, kernels, runs; not those that called us
  local own pid
  own=" $(ancestors) "
  { workers; marked; } | sort -u | while read -r pid; do [[ $own == *" $pid "* ]] || echo "$pid"; done
}

marked() { # those with our mark in their environment, and the kernels of our runs
  local marks
  marks="^(TRAINLAB_STACK=$(escaped "$stack")$|TRAINLAB_RUN=$(escaped "$PWD")/logs/)"
  { grep -lzE "$marks" /proc/[0-9]*/environ | cut -d / -f 3; } 2>/dev/null || true
}

workers() { # the processes that execute notebooks headless, whatever shell started them; the pattern spares grep itself
  {
    grep -lzx 'trainlab[.]runs[.]worker' /proc/[0-9]*/cmdline | xargs -r grep -lzF "$PWD/logs/" | cut -d / -f 3
  } 2>/dev/null || true
}

escaped() { sed 's/[][\.*^$+?(){}|/]/\\&/g' <<<"$1"; }

ancestors() { # prints our own process and those above it
  local pid=$BASHPID
  while ((pid > 1)); do
    echo -n "$pid "
    pid=$(awk '/^PPid:/ { print $2 }' "/proc/$pid/status")
  done
}

engine_clean() { engine_down; }
