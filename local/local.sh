# shellcheck shell=bash
# The engine without Docker: the services under supervisord, in .venv, their state in .stack/.
# Defines engine_*; sourced by stack/verb. Everything that is started carries TRAINLAB_STACK in its environment:
# that is how `make down` finds it again, even a run that left its terminal or a kernel that lost its server.
stack=$PWD/.stack
patience=60 # seconds for the services to become healthy
tensorboard_socket=.stack/tensorboard.sock # where it has no port; relative, for a socket's path may have 107 characters
# shellcheck source=jupyter/grace
source jupyter/grace

engine_build() {
  local/install "$gpu"
}

engine_up() {
  [[ -r /proc/self/environ ]] || fail "without Docker the stack needs Linux; start Docker here"
  local services=(jupyter tensorboard)
  ! shared || services+=(share)
  check_ports up "${services[@]}"
  unprivileged_ports "${services[@]}"
  engine_build
  if engine_running; then
    wait_until_healthy leave_services
  else
    start_services
    wait_until_healthy stop_services
  fi
}

unprivileged_ports() { # unprivileged_ports SERVICE...: a port below 1024 is root's
  local service
  for service; do
    ((EUID == 0)) || has_no_port "$service" || (($(port_of "$service") >= 1024)) ||
      fail "$(port_variable "$service")=$(port_of "$service"): only root may use a port below 1024"
  done
}

start_services() {
  (umask 077 && mkdir -p .stack && port_of jupyter >.stack/jupyter.port && port_of tensorboard >.stack/tensorboard.port)
  chmod 700 .stack
  rm -f .stack/share.{name,port}
  if shared; then
    make_certificate
    setting SHARE "" >.stack/share.name
    port_of share >.stack/share.port
  fi
  echo "starting JupyterLab and TensorBoard ... (without Docker nothing limits their memory: JUPYTER_MEMORY is Docker's)"
  (
    export JUPYTER_TOKEN JUPYTER_PORT TENSORBOARD_PORT TENSORBOARD_AT TENSORBOARD_SHOWN TENSORBOARD_MEMORY SERVE_AT SERVE_TOKEN
    export NOTIFY NOTIFIES=false
    JUPYTER_TOKEN=$(setting JUPYTER_TOKEN "") NOTIFY=$(setting NOTIFY "")
    [[ -z $NOTIFY ]] || NOTIFIES=true
    JUPYTER_PORT=$(port_of jupyter) TENSORBOARD_PORT=$(port_of tensorboard)
    TENSORBOARD_AT=127.0.0.1:$TENSORBOARD_PORT TENSORBOARD_SHOWN=$TENSORBOARD_PORT TENSORBOARD_MEMORY=$(setting TENSORBOARD_MEMORY 2g)
    ! has_no_port tensorboard || TENSORBOARD_AT=$tensorboard_socket TENSORBOARD_SHOWN=$JUPYTER_PORT/tensorboard
    # shellcheck disable=SC2030
    SERVE_AT=127.0.0.1:$(port_of serve) SERVE_TOKEN=$(setting SERVE_TOKEN "")
    if shared; then export_share; fi
    more_open_files
    in_stack .venv/bin/python -m supervisor.supervisord -c local/supervisord.conf
  ) >.stack/start.log 2>&1 </dev/null || { cat .stack/start.log >&2 && fail "supervisord did not start"; }
}

engine_shared_as() { if engine_running; then cat .stack/share.name 2>/dev/null || true; fi; }

engine_check_share() {
  [[ -z $(setting SHARE_ACME "") ]] ||
    fail "SHARE_ACME needs Docker: JupyterLab itself asks no authority. SHARE_TLS names a certificate that you have. Nothing was started."
  [[ -n $(setting SHARE_TLS "") ]] || command -v openssl >/dev/null ||
    fail "openssl, which makes a certificate, is missing: sudo apt install openssl, or SHARE_TLS names one that you have. Nothing was started."
}

share_certificate() { setting SHARE_TLS "$stack/share"; } # the folder with server.crt and server.key

export_share() { # exports what JupyterLab reads (jupyter/shared.py)
  export SHARE SHARE_PORT SHARE_ADDRESS SHARE_CULL SHARE_PASSWORD_HASH SHARE_CERTIFICATE
  SHARE=$(setting SHARE "") SHARE_PORT=$(port_of share) SHARE_ADDRESS=$(share_listen) SHARE_CULL=$(setting SHARE_CULL 12h)
  SHARE_PASSWORD_HASH=$(setting SHARE_PASSWORD_HASH "") SHARE_CERTIFICATE=$(share_certificate)
}

share_listen() { setting SHARE_ADDRESS 0.0.0.0 | tr -d '[]'; }

make_certificate() { # one that nobody has signed, for this name: where there is none, or it ends within a month
  local folder=$stack/share name
  name=$(setting SHARE "")
  [[ -z $(setting SHARE_TLS "") ]] || return 0
  if openssl x509 -in "$folder/server.crt" -noout -checkend 2592000 -checkhost "$name" 2>/dev/null | grep -q 'does match'
  then return; fi
  (umask 077 && mkdir -p "$folder")
  # no authority (CA:FALSE): who trusts it trusts this name alone. 397 days are what browsers take
  (umask 077 && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 397 -sha256 \
    -keyout "$folder/server.key" -out "$folder/server.crt" -config <(printf '%s\n' '[req]' 'distinguished_name = name' \
      'x509_extensions = extensions' 'prompt = no' '[name]' "CN = ${name:0:64}" '[extensions]' "subjectAltName = DNS:$name" \
      'basicConstraints = critical,CA:FALSE' 'keyUsage = critical,digitalSignature' 'extendedKeyUsage = serverAuth')) 2>"$folder/log" ||
    fail "openssl made no certificate for $name: $(tail -n 1 "$folder/log")"
}

engine_share_root() {
  echo "made here, and signed by nobody: install .stack/share/server.crt where people browse (docs/https.md)"
}

more_open_files() { # as many as the containers have, where this machine allows it: an event file is held open each
  local hard
  hard=$(ulimit -Hn)
  if [[ $hard == unlimited ]] || ((hard > 65536)); then hard=65536; fi
  ulimit -Sn "$hard"
}

in_stack() { # in_stack COMMAND...: with the environment that the containers have, too
  export_settings
  env TRAINLAB_STACK="$stack" TRAINLAB_ROOT="$PWD" HF_HOME="$PWD/data/hub" \
    MLFLOW_DISABLE_TELEMETRY=true WANDB_ERROR_REPORTING=false \
    HF_HUB_OFFLINE="$(setting HF_HUB_OFFLINE "")" PATH="$PWD/.venv/bin:$PATH" \
    VIRTUAL_ENV="$PWD/.venv" PYTHONNOUSERSITE=1 OMP_WAIT_POLICY="$(setting OMP_WAIT_POLICY PASSIVE)" TRAINLAB_USER="$(id -un)" \
    JUPYTER_CONFIG_DIR="$stack/jupyter/config" JUPYTER_DATA_DIR="$stack/jupyter/data" \
    JUPYTER_RUNTIME_DIR="$stack/jupyter/runtime" IPYTHONDIR="$stack/ipython" "$@"
}

export_settings() { # what runs need to know of trackers and of the head, as in the containers
  # exported one by one: on a command line everybody on the machine could read a key
  local name value
  for name in $(settings_of_runs); do
    value=$(setting "$name" "")
    [[ -z $value ]] || export "$name=$value"
  done
  value=$(setting HEAD_PASSWORD "")
  [[ -z $value ]] || export TRAINLAB_HEAD_PASSWORD="$value"
}

settings_of_runs() { sed -nE 's/^ +((WANDB|MLFLOW|PGSSL)[A-Z_]+):$/\1/p' docker-compose.yml; } # their names

wait_until_healthy() { # wait_until_healthy FAREWELL: what is done with services that do not become healthy
  local deadline=$((SECONDS + patience))
  until service_healthy jupyter && service_healthy tensorboard; do
    if ! engine_running || ((SECONDS >= deadline)); then give_up "$1"; fi
    sleep 0.1
  done
}

give_up() { # give_up FAREWELL
  tail -n 20 .stack/jupyter.log .stack/tensorboard.log >&2 || true
  fail "the services were not healthy within $patience s; their last words are above. $("$1")"
}

leave_services() {
  echo "They ran before and were left alone; \`make down\` and \`make up\` start them anew."
}

stop_services() { # the two alone: a training that goes on without them is not this start's to end
  local pid deadline=$((SECONDS + 15))
  pid=$(cat .stack/supervisord.pid 2>/dev/null) && send TERM "$pid"
  while engine_running && ((SECONDS < deadline)); do sleep 0.1; done
  echo "Both were stopped."
}

service_healthy() { # service_healthy SERVICE: by the containers' own checks
  local port own=()
  port=$(engine_port "$1")
  if [[ $1 == store ]]; then
    (exec 3<>"/dev/tcp/$(head_listen)/$port") 2>/dev/null
    return
  elif [[ $1 == share ]]; then
    (exec 3<>"/dev/tcp/$(share_listen)/$port") 2>/dev/null
    return
  fi
  if [[ $1.$port == tensorboard.off ]]; then # bash speaks with no Unix socket
    .venv/bin/python -c 'import socket, sys
with socket.socket(socket.AF_UNIX) as asked:
    asked.settimeout(4)
    asked.connect(sys.argv[1])
    asked.sendall(b"GET /data/environment HTTP/1.0\r\nHost: localhost\r\n\r\n")
    sys.exit(b" 200 " not in asked.recv(64))' "$tensorboard_socket" 2>/dev/null
    return
  fi
  [[ $1 != head ]] || own=(HEAD_LISTEN="$(head_listen)" PATH="$(postgresql_programs):$PATH")
  env "$(port_variable "$1")=$port" "${own[@]}" bash "$1/health" 2>/dev/null
}

engine_running() { local_is_up; }

engine_port() { # engine_port SERVICE: the port it was started on, nothing when it is down
  local_is_up "$(supervisor_of "$1")" && cat ".stack/$1.port" 2>/dev/null || true
}

supervisor_of() { # the one that keeps a service up
  case $1 in
    head | store) echo head ;;
    serve) echo serve ;;
  esac
}

engine_state() {
  if ! local_is_up "$(supervisor_of "$1")"; then echo down
  elif service_healthy "$1"; then echo healthy
  else echo "not answering"; fi
}

engine_head_up() {
  local programs HEAD_PASSWORD deadline service has_store=false
  [[ -r /proc/self/environ ]] || fail "without Docker the head needs Linux; start Docker here"
  ((EUID)) || fail "PostgreSQL refuses to run as root. Start make as another user, or with Docker."
  programs=$(postgresql_programs)
  [[ -n $programs ]] || fail "the head is PostgreSQL, which is not installed here. Debian, Ubuntu: sudo apt install postgresql
       (the database of its own that it may start is not used). Nothing was started."
  engine_build
  if ! local_is_up head; then
    rm -f .stack/store.port
    for service in "${services[@]}"; do (umask 077 && mkdir -p .stack && port_of "$service" >".stack/$service.port"); done
    [[ ! -e .stack/store.port ]] || has_store=true
    HEAD_PASSWORD=$(setting HEAD_PASSWORD "")
    export HEAD_PASSWORD # on a command line everybody could read it
    in_stack env PATH="$programs:$PWD/.venv/bin:$PATH" HEAD_DATA="$stack/head/data" HEAD_RUN="$stack/head/run" HEAD_PORT="$(port_of head)" \
      HEAD_LISTEN="$(head_listen)" HEAD_TLS="$(setting HEAD_TLS "")" HEAD_STORE_PORT="$(port_of store)" HEAD_HAS_STORE="$has_store" \
      .venv/bin/python -m supervisor.supervisord -c local/head.conf >.stack/start.log 2>&1 </dev/null ||
      { cat .stack/start.log >&2 && fail "supervisord did not start"; }
  fi
  deadline=$((SECONDS + patience))
  for service in "${services[@]}"; do
    if [[ ! -e .stack/$service.port ]]; then
      missing="the head was up before it. \`make unhead\`, then \`make head\`" # head_up's, which says it
      continue
    fi
    until service_healthy "$service"; do
      if ! local_is_up head || ((SECONDS >= deadline)); then
        tail -n 20 ".stack/$service.log" >&2 || true
        if [[ $service == store ]] && local_is_up head; then # sweeps may be using the head, which has nothing to do with it
          fail "the store was not healthy within $patience s, and is started again and again; the head goes on.
       The store's last words are above"
        fi
        engine_head_down
        fail "the $service was not healthy within $patience s; its last words are above"
      fi
      sleep 0.1
    done
  done
}

engine_store_lacks() { :; } # what .venv has is enough

postgresql_programs() { # prints the folder of the newest PostgreSQL's own programs, which Debian keeps out of PATH
  local newest
  newest=$(find /usr/lib/postgresql/*/bin/postgres -maxdepth 0 2>/dev/null | sort -V | tail -n 1)
  [[ -n $newest ]] || newest=$(command -v postgres) || return 0
  dirname "$newest"
}

head_listen() { head_address | tr -d '[]'; } # as PostgreSQL wants it

engine_say_head() { :; } # it has this one address

engine_head_down() {
  local deadline=$((SECONDS + 40))
  ! local_is_up head || send TERM "$(cat .stack/head.pid)"
  while local_is_up head && ((SECONDS < deadline)); do sleep 0.1; done
  ! local_is_up head || fail "the head does not end: process $(cat .stack/head.pid)"
  rm -f .stack/head.{pid,port} .stack/store.port
  echo "stopped: the head. Workers wait for it, or give their runs up after a minute"
}

engine_serve_up() { # sets renewed to 1 where the service runs as it should, and has only to read models/served anew
  local deadline
  [[ -r /proc/self/environ ]] || fail "without Docker the service needs Linux; start Docker here"
  unprivileged_ports serve
  engine_build
  if local_is_up serve && serves_as_set && service_healthy serve; then
    renewed=1
    return
  fi
  ! local_is_up serve || engine_serve_down
  (umask 077 && mkdir -p .stack && port_of serve >.stack/serve.port)
  rm -f .stack/serve-supervisord.log
  (
    # shellcheck disable=SC2031 # the other subshell that sets it is start_services'
    export SERVE_PORT SERVE_TOKEN
    SERVE_PORT=$(port_of serve) SERVE_TOKEN=$(setting SERVE_TOKEN "")
    more_open_files
    in_stack .venv/bin/python -m supervisor.supervisord -c local/serve.conf
  ) >.stack/start.log 2>&1 </dev/null || { cat .stack/start.log >&2 && fail "supervisord did not start"; }
  deadline=$((SECONDS + patience))
  until service_healthy serve; do
    if grep -qs 'exited: serve' .stack/serve-supervisord.log || ((SECONDS >= deadline)); then
      tail -n 20 .stack/serve.log >&2 || true
      engine_serve_down >/dev/null
      fail "the service did not become healthy, and was stopped; its last words are above"
    fi
    sleep 0.1
  done
}

serves_as_set() { # what runs has the port and the token that the settings have now
  [[ $(cat .stack/serve.port) == "$(port_of serve)" ]] &&
    grep -qzxFf <(printf 'SERVE_TOKEN=%s\n' "$(setting SERVE_TOKEN "")") "/proc/$(cat .stack/serve.pid)/environ"
}

engine_serve_ready() { # engine_serve_ready [1]: what it serves; with 1 it reads models/served anew first
  local server=""
  if [[ -n ${1:-} ]]; then
    read -r server _ <"/proc/$(cat .stack/serve.pid)/task/$(cat .stack/serve.pid)/children" || true
    [[ -n $server ]] || { echo "error: the service has ended, and is started again" >&2 && return 1; }
  fi
  SERVE_PORT=$(engine_port serve) .venv/bin/python serve/ready.py ${server:+"$server"}
}

engine_serve_down() {
  local deadline=$((SECONDS + 20))
  ! local_is_up serve || send TERM "$(cat .stack/serve.pid)"
  while local_is_up serve && ((SECONDS < deadline)); do sleep 0.1; done
  ! local_is_up serve || fail "the service does not end: process $(cat .stack/serve.pid)"
  rm -f .stack/serve.{pid,port}
  echo "stopped: the service. models/ stays as it is"
}

engine_logs() { # engine_logs [SERVICE]: goes on with what is added, in a terminal
  local files=(.stack/*.log) options=(-n 100)
  (($#)) && files=(".stack/$1.log")
  [[ -e ${files[0]} ]] || fail "no such log: ${files[0]}; \`make up\` starts the services jupyter and tensorboard, \`make serve\` serve"
  [[ ! -t 1 ]] || options+=(-F)
  exec tail "${options[@]}" "${files[@]}"
}

engine_shell() { # a shell of the user's own: it outlives the stack
  engine_build
  in_stack env -u TRAINLAB_STACK "${SHELL:-bash}" "$@"
}

engine_execute() { # engine_execute COMMAND...: with what .venv has
  engine_build >&2
  in_stack env -u JUPYTER_TOKEN -u NOTIFY TRAINLAB_MAKE=1 "$@"
}

engine_sbom() {
  engine_build
  .venv/bin/python stack/sbom.py trainlab python >.stack/venv.cdx.json
  echo "wrote .stack/venv.cdx.json"
}

engine_down() {
  trap '' HUP # `make down` typed into JupyterLab's terminal loses that terminal on the way
  local pids folders seconds name stopped=$SECONDS
  mapfile -d '' -t folders < <(at_work | grep -zF "$PWD/logs/" || true)
  seconds=$(patience "${folders[@]}")
  pids=$(workers)
  [[ -z $pids ]] || echo "interrupting $(wc -w <<<"$pids") run(s) still going on"
  if engine_running; then pids+=" $(cat .stack/supervisord.pid)"; fi
  for name in head serve; do
    if local_is_up "$name"; then pids+=" $(cat ".stack/$name.pid")"; fi
  done
  send TERM "$pids" # they end what they started, and take some seconds to write down how
  await_end "$seconds" || { send TERM "$(members)" && await_end 5; } || { send KILL "$(members)" && await_end 5; } ||
    fail "these processes do not end: $(members | tr '\n' ' ')"
  rm -f .stack/{supervisord,head,serve}.pid .stack/*.port .stack/share.name
  echo "stopped: nothing of the stack runs any more"
}

send() { # send SIGNAL PIDS
  local pid
  for pid in $2; do kill "-$1" "$pid" 2>/dev/null || true; done
}

await_end() { # await_end SECONDS: true as soon as no process of the stack is left; longer where a save has begun
  local begun=$SECONDS
  while [[ -n $(members) ]]; do
    ((SECONDS - begun < $1)) || { saving "${folders[@]}" && ((SECONDS - stopped < longest)); } || return 1
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
    grep -lzx 'trainlab[.]headless[.]worker' /proc/[0-9]*/cmdline | xargs -r grep -lzF "$PWD/logs/" | cut -d / -f 3
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
